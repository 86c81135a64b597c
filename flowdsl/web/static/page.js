// flowdsl's page. The server draws everything; this fetches what it drew anew and puts it in place.
"use strict";

const main = document.getElementById("main");
const by = (id) => document.getElementById(id);

// -------------------------------------------------------------------------------------------------- dialogs

document.addEventListener("click", (event) => {
  const open = event.target.closest("[data-open]");
  if (open) by(open.dataset.open)?.showModal();
  if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
});

// -------------------------------------------------------------------------------------------------- one run

if (main?.dataset.runId !== undefined) {
  const view = new URLSearchParams(location.search);
  let zoom = 1;
  let asked = 0; // the newest request; answers of older ones are dropped
  const scroller = () => by("bars-scroll");

  // Putting in place: what has data-swap is replaced where it differs. Focus and scrolling stay.

  function marked(element) {
    if (!element || element === document.body) return null;
    if (element.id) return () => by(element.id);
    const holder = element.closest("[data-swap][id]");
    if (!holder) return null;
    const same = element.dataset.stepKey
      ? `[data-bar][data-step-key="${CSS.escape(element.dataset.stepKey)}"]`
      : element.dataset.show ? `[data-show="${CSS.escape(element.dataset.show)}"]` : element.dataset.open ? `[data-open="${CSS.escape(element.dataset.open)}"]` : null;
    return same && (() => by(holder.id)?.querySelector(same));
  }

  function put(page) {
    const fresh = page.getElementById("main");
    if (!fresh || fresh.dataset.runId !== main.dataset.runId || !page.getElementById("foot")) return; // broken off
    const focused = marked(document.activeElement);
    const scrolled = [scrollX, scrollY];
    main.dataset.status = fresh.dataset.status;
    by("foot").dataset.last = page.getElementById("foot").dataset.last;
    document.title = page.title;
    if (!by("timeline") !== !page.getElementById("timeline")) return location.reload();
    if (by("timeline")) by("timeline").dataset.total = page.getElementById("timeline").dataset.total;
    const wanted = [...page.querySelectorAll("[data-swap]")];
    for (const old of document.querySelectorAll("[data-swap]")) {
      if (!wanted.some((one) => one.id === old.id)) old.remove();
    }
    for (const one of wanted) {
      const old = by(one.id);
      if (old) {
        if (old.outerHTML !== one.outerHTML) {
          const tables = [...old.querySelectorAll(".scroll")].map((part) => part.scrollLeft);
          old.replaceWith(one);
          one.querySelectorAll(".scroll").forEach((part, n) => (part.scrollLeft = tables[n] ?? 0));
        }
      } else {
        const before = one.previousElementSibling && by(one.previousElementSibling.id);
        if (before) before.after(one);
        else main.append(one);
      }
    }
    by("idle")?.toggleAttribute("disabled", page.getElementById("idle")?.disabled ?? true);
    stretch();
    const again = focused?.();
    if (again && again !== document.activeElement) again.focus({ preventScroll: true });
    scrollTo(...scrolled);
  }

  async function load() {
    const mine = ++asked;
    const query = new URLSearchParams(view);
    const part = inView();
    if (part) for (const name of ["begin", "end"]) query.set(name, part[name]);
    const answer = await fetch(`${location.pathname}?${query}`, { headers: { Accept: "text/html" } });
    const text = await answer.text();
    if (mine !== asked) return false;
    if (answer.ok) put(new DOMParser().parseFromString(text, "text/html"));
    return answer.ok;
  }

  function look(changes) {
    for (const [name, value] of Object.entries(changes)) {
      if (value) view.set(name, value);
      else view.delete(name);
    }
    const query = view.toString();
    history.replaceState(null, "", location.pathname + (query ? `?${query}` : ""));
    return load();
  }

  function soon(wait, act) {
    let timer = 0;
    return () => {
      clearTimeout(timer);
      timer = setTimeout(act, wait);
    };
  }

  // Zoom: the width of the picture. All places in it are in percent.

  const closer = soon(150, () => {
    if (by("count")?.textContent.includes("zoom in")) load();
    else if (zoom > 1 && Number(by("timeline")?.dataset.total) > 500) load();
  });

  function stretch() {
    by("bars")?.setAttribute("width", `${100 * zoom}%`);
  }

  function inView() {
    const box = scroller();
    if (!box || zoom === 1) return null;
    const part = (at) => Math.min(Math.max(at / box.scrollWidth, 0), 1).toFixed(5);
    return { begin: part(box.scrollLeft), end: part(box.scrollLeft + box.clientWidth) };
  }

  function zoomTo(wanted) {
    const box = scroller();
    if (!box) return;
    const next = Math.min(Math.max(wanted, 1), 1000);
    const focused = document.activeElement?.matches("[data-bar]") ? document.activeElement.querySelector("rect").getBoundingClientRect() : null;
    const at = focused ? focused.left + focused.width / 2 - box.getBoundingClientRect().left : box.clientWidth / 2;
    const place = (box.scrollLeft + at) / box.scrollWidth;
    zoom = next;
    stretch();
    box.scrollLeft = place * box.scrollWidth - at;
    closer();
  }

  // Choosing a step

  function mark() {
    const key = view.get("step");
    for (const one of document.querySelectorAll(".chosen")) one.classList.remove("chosen");
    if (key) for (const one of document.querySelectorAll(`[data-step-key="${CSS.escape(key)}"]`)) one.classList.add("chosen");
  }

  async function show(key) {
    if ((await look({ step: key })) && by("detail")) {
      by("detail").focus({ preventScroll: true });
      by("detail").scrollIntoView({ block: "nearest" });
    }
    mark();
  }

  async function hide() {
    const key = view.get("step");
    if (!key) return;
    by("detail")?.remove();
    focusBar(document.querySelector(`[data-bar][data-step-key="${CSS.escape(key)}"]`));
    await look({ step: "" });
    mark();
  }

  function focusBar(bar) {
    if (!bar) return;
    for (const other of document.querySelectorAll('[data-bar][tabindex="0"]')) other.setAttribute("tabindex", "-1");
    bar.setAttribute("tabindex", "0");
    bar.focus({ preventScroll: true });
    const box = scroller(), rect = bar.querySelector("rect").getBoundingClientRect(), frame = box.getBoundingClientRect();
    if (rect.left < frame.left) box.scrollLeft -= frame.left - rect.left + 40;
    else if (rect.right > frame.right) box.scrollLeft += Math.min(rect.right - frame.right + 40, rect.left - frame.left - 40);
    if (rect.top < frame.top) box.scrollTop -= frame.top - rect.top + 30;
    else if (rect.bottom > frame.bottom) box.scrollTop += rect.bottom - frame.bottom + 30;
    bar.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  function step(bar, key) {
    const bars = [...document.querySelectorAll("[data-bar]")];
    const at = bars.indexOf(bar);
    if (key === "Home") return focusBar(bars[0]);
    if (key === "End") return focusBar(bars.at(-1));
    if (key === "ArrowRight" || key === "ArrowLeft") return focusBar(bars[at + (key === "ArrowRight" ? 1 : -1)]);
    const down = key === "ArrowDown", lane = Number(bar.dataset.lane);
    const middle = (one) => { const r = one.querySelector("rect").getBoundingClientRect(); return r.left + r.width / 2; };
    const others = bars.filter((one) => (down ? Number(one.dataset.lane) > lane : Number(one.dataset.lane) < lane));
    const distance = (one) => [Math.abs(Number(one.dataset.lane) - lane), Math.abs(middle(one) - middle(bar))];
    others.sort((a, b) => distance(a)[0] - distance(b)[0] || distance(a)[1] - distance(b)[1]);
    focusBar(others[0]);
  }

  document.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    const bar = event.target.closest("[data-bar]"), link = event.target.closest("[data-show]");
    const key = bar?.dataset.stepKey ?? link?.dataset.show;
    const other = event.target.closest("[data-view]");
    if (key !== undefined) { event.preventDefault(); show(key); }
    else if (event.target.closest("[data-hide]")) { event.preventDefault(); hide(); }
    else if (other) {
      event.preventDefault();
      look({ [other.dataset.view]: other.dataset.value }).then(() => by("steps").scrollIntoView({ block: "start" }));
    }
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const typing = event.target.matches("input:not([type=checkbox]), textarea, select");
    const bar = event.target.closest?.("[data-bar]");
    if (event.key === "Escape" && (by("detail") || view.get("step"))) { event.preventDefault(); hide(); }
    else if (typing) return;
    else if (bar && /^(Arrow|Home|End)/.test(event.key)) { event.preventDefault(); step(bar, event.key); }
    else if (bar && event.key === " ") { event.preventDefault(); show(bar.dataset.stepKey); }
    else if (event.key === "/" && by("filter-name")) { event.preventDefault(); by("filter-name").focus(); by("filter-name").select(); }
    else if (event.key === "+" || event.key === "=") zoomTo(zoom * 1.6);
    else if (event.key === "-") zoomTo(zoom / 1.6);
    else if (event.key === "0") zoomTo(1);
  });

  by("zoom-in")?.addEventListener("click", () => zoomTo(zoom * 1.6));
  by("zoom-out")?.addEventListener("click", () => zoomTo(zoom / 1.6));
  by("zoom-fit")?.addEventListener("click", () => zoomTo(1));
  scroller()?.addEventListener("scroll", () => zoom > 1 && closer());
  by("filter-name")?.addEventListener("input", soon(120, () => look({ name: by("filter-name").value.trim(), page: "" })));
  by("failed-only")?.addEventListener("change", () => look({ failed: by("failed-only").checked ? "1" : "", page: "" }));
  by("idle")?.addEventListener("click", () => {
    const unfold = by("idle").getAttribute("aria-pressed") !== "true";
    by("idle").setAttribute("aria-pressed", String(unfold));
    look({ idle: unfold ? "unfolded" : "" });
  });
  mark();

  // Live: the events say that something is new; the page is then drawn anew, once a second at most.

  let events = null, due = 0, drawn = 0, over = main.dataset.events === undefined;

  function refresh() {
    if (due || document.hidden) return;
    const cost = drawn; // a large run is drawn less often
    due = setTimeout(async () => {
      const began = performance.now();
      try { await load(); mark(); } catch { /* the server is gone; the stream tries again */ }
      drawn = performance.now() - began;
      due = 0;
    }, Math.max(over ? 0 : 700, 4 * cost));
  }

  function follow() {
    if (over || events || document.hidden) return;
    events = new EventSource(`${main.dataset.events}${main.dataset.events.includes("?") ? "&" : "?"}steps_after=${by("foot")?.dataset.last ?? 0}`);
    let first = true;
    events.addEventListener("run", (event) => {
      if (!first || JSON.parse(event.data).status !== main.dataset.status) refresh();
      first = false;
    });
    for (const name of ["step", "log"]) events.addEventListener(name, refresh);
    events.addEventListener("end", () => {
      over = true;
      rest();
      clearTimeout(due);
      due = 0;
      refresh();
    });
  }

  function rest() {
    events?.close();
    events = null;
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { rest(); clearTimeout(due); due = 0; }
    else if (!over) { refresh(); follow(); }
  });
  addEventListener("pagehide", rest);
  addEventListener("pageshow", follow);
  follow();
}

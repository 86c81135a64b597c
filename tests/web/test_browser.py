"""The page in a real browser: keys, filters, zoom, live, dialogs; on a phone, in the dark, and without script."""

import re

import pytest

from flowdsl import Queue, Schedule, log, sleep, store, wait_for, workflow
from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.storage import MemoryStorage
from web.test_pages import charge, check, reserve

WIDTHS = (360, 768, 1280)
QUIET = "new Promise(done => setTimeout(done, 1200))"  # longer than between two requests of a live page


@workflow(id="live")
def live():
    """Waits between two steps, so that a reader can watch."""
    reserve(["a"])
    wait_for("go")
    reserve(["b", "c"])
    return "done"


@workflow(id="rich-{n}", tags={"env": "prod"})
def rich(n):
    """Has a bit of everything, and fails."""
    log("begins", n=n)
    store.set("stage", "reserving")
    reserve(["shoe", "hat"])
    sleep(0.3)
    check.map(["a", "bb", "ccc"])
    charge(4990)


def long(number, failing=()):
    """A storage with a run of this many steps, one after the other."""
    storage = MemoryStorage()
    run = Run("long", "shop.load", "k", status=RunStatus.COMPLETED, created_at=1e9, finished_at=1e9 + number)
    storage.set_run(run)
    for n in range(number):
        storage.set_step(
            Step(
                "long",
                f"{n:040x}",
                f"shop.load.row{n}",
                args=f"n={n}",
                preview=f"OSError: {n}" if n in failing else f"{n}",
                status=StepStatus.FAILED if n in failing else StepStatus.COMPLETED,
                created_at=1e9 + n,
                completed_at=1e9 + n + 0.9,
            )
        )
    return storage


@pytest.fixture
def look(browser, serve):
    """Opens a page as a person would: by the link, with fresh cookies; at the end nothing was complained about."""

    def open_page(path, *, served=None, width=1280, dark=False, script=True, **options):
        served = served or serve(**options)
        browser.new_page(width, dark=dark, script=True)
        browser.go(served.link)
        assert browser.run("location.href") == f"{served.url}/"
        if not script:
            browser.call("Emulation.setScriptExecutionDisabled", value=True)
        browser.go(served.url + path)
        return browser

    yield open_page
    problems, requests = browser.problems(), browser.requests()
    browser.go("about:blank")  # before the server is gone
    assert problems == []
    assert not [url for url in requests if not url.startswith(("http://127.0.0.1:", "data:"))]


def failed(n=1):
    """A failed run of :func:`rich`."""
    with pytest.raises(ConnectionError):
        rich(n)
    return f"rich-{n}"


def shown(kind):
    """JavaScript: the paths of the elements of this kind that can be seen."""
    return f"[...document.querySelectorAll('{kind}')].filter(e => e.checkVisibility()).map(e => e.dataset.path.split('.').pop())"


def test_from_the_list_to_a_step_by_keyboard(look):
    """By keyboard a reader opens a run, filters, moves between bars, and opens and closes a step."""
    run = failed()
    page = look("/")
    page.run("document.querySelector('[data-run-link]').focus()")
    page.press("Enter")
    page.until("document.readyState === 'complete' && document.querySelector('#timeline')")
    assert page.run("location.pathname") == f"/runs/{run}"
    page.press("/")
    page.until("document.activeElement.id === 'filter-name'")
    page.type("check")
    page.until(f"{shown('tr[data-step-key]')}.join() === 'check,check,check,check,check'")
    assert page.run("document.activeElement.id") == "filter-name"
    assert page.run("document.getElementById('count').textContent").startswith("5 of 8 steps")
    page.run(
        "(document.getElementById('filter-name').value = '', document.getElementById('filter-name').dispatchEvent(new Event('input')))"
    )
    page.until(f"{shown('[data-bar]')}.length === 8")
    page.run("document.querySelector('[data-bar]').focus()")
    page.press("ArrowRight")
    page.press("ArrowDown")
    page.press("ArrowUp")
    page.press("End")
    assert page.run("document.activeElement.dataset.path").endswith(".charge")
    assert page.run("document.activeElement.getAttribute('aria-label')").startswith(
        "charge, failed, 2 attempts, "
    )
    key = page.run("document.activeElement.dataset.stepKey")
    page.press("Enter")
    page.until("document.getElementById('detail')")
    assert page.run("document.getElementById('detail').dataset.for") == key
    assert page.run("document.activeElement.id") == "detail"
    text = page.run("document.getElementById('detail').textContent")
    assert "cents=4990" in text
    assert "ConnectionError" in text
    assert f"{run}/{key}" in text
    page.press("Escape")
    page.until("!document.getElementById('detail')")
    assert page.run("document.activeElement.dataset.stepKey") == key


def asleep():
    """A storage with a run that slept for a minute and a half between two steps."""
    storage = MemoryStorage()
    run = Run("asleep", "shop.sell", "k", status=RunStatus.FAILED, created_at=1e9, finished_at=1e9 + 101)
    storage.set_run(run)
    for n, (name, kind, start, end) in enumerate(
        [
            ("shop.reserve", "step", 0, 1),
            ("flowdsl.sleep", "sleep", 1, 100),
            ("shop.charge", "step", 100, 101),
        ]
    ):
        status = StepStatus.FAILED if name == "shop.charge" else StepStatus.COMPLETED
        times = {"created_at": 1e9 + start, "completed_at": 1e9 + end}
        storage.set_step(Step("asleep", f"{n:040x}", name, kind=kind, status=status, **times))
    return storage


def test_failed_only_zoom_and_idle_time(look, serve):
    """Failed only, zoom and idle time work by mouse and key."""
    page = look("/runs/asleep", served=serve(asleep()))
    page.click("#failed-only")
    page.until(f"{shown('[data-bar]')}.join() === 'charge'")
    page.click("#failed-only")
    page.until(f"{shown('[data-bar]')}.length === 3")
    width = "document.getElementById('bars').getBoundingClientRect().width"
    before = page.run(width)
    page.click("#zoom-in")
    assert page.run(width) > 1.3 * before
    page.run("document.activeElement.blur()")
    page.press("+")
    page.press("-")
    page.press("0")
    assert page.run(width) == before
    assert page.run("document.querySelectorAll('[data-idle]').length") == 1
    assert page.run("document.querySelector('[data-idle]').dataset.idle") == "1m39s"
    assert page.run("document.getElementById('idle').getAttribute('aria-pressed')") == "false"
    page.click("#idle")
    page.until("document.querySelectorAll('[data-idle]').length === 0")
    assert page.run("document.getElementById('idle').getAttribute('aria-pressed')") == "true"
    page.click("#idle")
    page.until("document.querySelectorAll('[data-idle]').length === 1")


def test_a_running_run_is_followed_without_moving_anything(look):
    """A live page adds steps and changes the status, and moves no focus, input or scroll position."""
    run = live.start()
    page = look("/runs/live")
    page.until(
        "document.querySelector('main').dataset.status === 'running' && document.querySelectorAll('[data-bar]').length >= 3"
    )
    page.resize(1280, 300)
    page.run("document.getElementById('filter-name').focus({preventScroll: true})")
    page.run("scrollTo(0, 120)")
    page.run("new Promise(done => setTimeout(done, 300))")
    run.signal("go")
    assert run.result(60) == "done"
    page.until("document.querySelector('main').dataset.status === 'completed'")
    assert page.run("document.querySelectorAll('[data-bar]').length") == 6
    assert page.run("document.activeElement.id") == "filter-name"
    assert page.run("scrollY") == 120
    assert page.run("document.title").startswith("completed")
    asked = -1
    for _ in range(30):  # it has ended: after what was on its way, nothing is asked any more
        before, asked = asked, len(page.requests())
        if asked == before:
            break
        page.run(QUIET)
    else:
        raise AssertionError("the page asks on")


def test_a_hidden_tab_asks_nothing(look):
    """A hidden tab closes its event stream, and opens it again when it is shown."""
    run = live.start()
    page = look("/runs/live")
    page.until("document.querySelectorAll('[data-bar]').length >= 3")
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true}); document.dispatchEvent(new Event('visibilitychange'))"
    page.run(hide % "true")
    page.run(QUIET)  # for what was on its way
    asked = len(page.requests())
    run.signal("go")
    run.result(60)
    page.run(QUIET)
    assert len(page.requests()) == asked
    assert page.run("document.querySelector('main').dataset.status") == "running"
    page.run(hide % "false")
    page.until("document.querySelector('main').dataset.status === 'completed'")


def test_only_the_button_in_the_dialog_acts(look):
    """A click opens a dialog that names the run, and only its button acts."""
    run = live.start()
    page = look("/runs/live", allow_actions=True)
    page.click("[data-open=do-cancel]")
    assert page.run("document.querySelector('dialog[open]').textContent").count("live") == 1
    page.press("Escape")
    page.until("!document.querySelector('dialog[open]')")
    page.click("[data-open=do-cancel]")
    page.click("dialog[open] [data-close]")
    assert str(run.status) == "running"
    page.click("[data-open=do-signal]")
    assert page.run("document.querySelector('dialog[open] [name=name]').value") == "go"
    page.click("dialog[open] [data-confirm]")
    page.until("document.querySelector('main').dataset.status === 'completed'")
    assert run.result(60) == "done"


def test_ten_thousand_steps_stay_light(look, serve):
    """Ten thousand steps make a page below a megabyte with a thousand elements, and the filter covers all
    steps."""
    served = serve(long(10_000, failing={9_876}))
    page = look("/runs/long", served=served)
    elements = "document.querySelectorAll('[data-step-key]').length"
    assert page.run(elements) == 1000
    assert page.run("document.documentElement.outerHTML.length") < 1_000_000
    assert page.run("document.getElementById('timeline').dataset.total") == "10000"
    assert page.run("document.querySelectorAll('[data-bar][data-status=failed]').length") == 1
    page.click("#failed-only")
    page.until(f"{shown('tr[data-step-key]')}.join() === 'row9876'")
    page.click("#failed-only")
    page.until(f"{elements} === 1000")
    page.press("/")
    page.run("document.getElementById('filter-name').focus()")
    page.type("row77")
    page.until(f"{shown('[data-bar]')}.length === 111")
    page.run(
        "(document.activeElement.value = '', document.activeElement.dispatchEvent(new Event('input')),"
        " document.activeElement.blur())"
    )
    page.until(f"{elements} === 1000")
    for _ in range(6):
        page.press("+")
    page.until("document.getElementById('bars').getBoundingClientRect().width > 10_000")
    page.run("document.getElementById('bars-scroll').scrollLeft = 1e9")
    page.until("[...document.querySelectorAll('[data-bar]')].at(-1)?.dataset.path.endsWith('row9999')")
    assert page.run(elements) <= 1000


CONTRAST = """
(() => {
  const parse = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return [m[0], m[1], m[2], m[3] ?? 1]; };
  const over = (top, under) => top.slice(0, 3).map((v, i) => v * top[3] + under[i] * (1 - top[3])).concat(1);
  const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const ground = (e) => { const layers = []; for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); layers.push(c); if (c[3] === 1) break; } let base = parse(getComputedStyle(document.documentElement).colorScheme.includes('dark') && matchMedia('(prefers-color-scheme: dark)').matches ? 'rgb(18,18,18)' : 'rgb(255,255,255)'); for (const c of layers.reverse()) base = over(c, base); return base; };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || !e.checkVisibility() || ['SCRIPT', 'STYLE', 'TITLE', 'OPTION'].includes(e.tagName.toUpperCase())) continue;
    const style = getComputedStyle(e), bar = e.closest('[data-bar]');
    let fore, back;
    if (e.namespaceURI.includes('svg')) {
      fore = parse(style.fill);
      back = ground(document.getElementById('bars-scroll'));
      if (bar) { const s = getComputedStyle(bar.querySelector('rect')); const c = parse(s.fill); c[3] = Number(s.fillOpacity); back = over(c, back); }
    } else { fore = parse(style.color); back = ground(e); }
    const found = ratio(over(fore, back), back);
    if (found < 4.5) bad.push([text.slice(0, 30), Math.round(found * 100) / 100, style.color, e.className.baseVal ?? e.className]);
  }
  return bad;
})()
"""

SMALL = """
[...document.querySelectorAll('a, button, input, textarea, summary')].filter((e) => e.checkVisibility() && !e.closest('svg') && !e.closest('.skip') && !e.matches('.skip') && e.type !== 'checkbox')
  .map((e) => [e.getBoundingClientRect(), e]).filter(([r]) => r.height < 23.9 || r.width < 10).map(([r, e]) => [e.outerHTML.slice(0, 90), r.width, r.height])
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_page_reads_well_at_every_width(look, serve, browser, runtime, dark):
    """At each width no page scrolls sideways, and contrast, target sizes and headings are right."""
    run = failed(3)
    runtime.queues.put(Queue("mail", concurrency=2, rate="100/min"))
    runtime.schedules.put(Schedule("nightly", live, cron="30 2 * * *", timezone="Europe/Berlin"))
    runtime.schedules.pause("nightly")
    served = serve(allow_actions=True)
    page = look("/", served=served, dark=dark)
    key = page.run(f"fetch('/api/runs/{run}').then(r => r.json()).then(d => d.steps.at(-1).key)")
    runs = ("/", "/?q=nothing", f"/runs/{run}", f"/runs/{run}?step={key}")
    for path in (*runs, "/queues", "/schedules", "/workers"):
        page.resize(WIDTHS[0], 800)
        page.go(served.url + path)
        for width in WIDTHS:  # from the narrowest on: a page that grows meanwhile is never too wide
            page.resize(width, 800)
            assert page.run("document.documentElement.scrollWidth") <= width, path
            assert page.run(CONTRAST) == [], (path, width)
            assert page.run(SMALL) == [], (path, width)
            assert page.run("document.querySelectorAll('h1').length") == 1
            assert page.run("document.documentElement.lang") == "en"
            assert page.run("document.querySelectorAll('main').length") == 1


def test_the_list_shows_each_status_on_a_phone(look, serve):
    """On a phone the status of each run is on the screen, also beside long ids and tags."""
    storage = MemoryStorage()
    long = "a name that nobody would choose=" + "long " * 12
    for id in ("short", "https://example.org/" + "long/" * 20):
        storage.set_run(
            Run(id, "shop.sell", "k", status=RunStatus.COMPLETED, created_at=1e9, tags={long: "x"})
        )
    page = look("/", served=serve(storage), width=WIDTHS[0])
    edges = page.run(
        "[...document.querySelectorAll('.runs .state')].map((e) => e.getBoundingClientRect().right)"
    )
    assert len(edges) == 2
    assert max(edges) <= WIDTHS[0]


def test_a_page_that_says_what_is_wrong_can_be_read_at_every_width(look, serve):
    """A page with an error is visible at each width, says what is wrong in a sentence, and links on."""
    served = serve()
    page = look("/", served=served)
    seen = "[...document.querySelectorAll('main *, nav a')].filter((e) => e.checkVisibility()).map((e) => e.innerText)"
    for width in WIDTHS:
        page.resize(width, 800)
        page.go(f"{served.url}/runs/none")
        said = page.run(seen)
        assert {"Nothing is here", "There is no such run.", "All runs"} <= set(said), width
        assert {"Runs", "Queues", "Schedules", "Workers"} <= set(said), width
    page.events.clear()  # the browser complains of the status


def test_the_page_reads_without_script(look):
    """Without script a page has error, bars, rows and details, and a bar links to its step."""
    run = failed(4)
    page = look(f"/runs/{run}", script=False)
    markup = page.run("document.documentElement.outerHTML")
    assert markup.count("<tr data-step-key=") == markup.count("<a data-bar=") == 8
    link = re.search(r'<a data-bar=""[^>]* href="([^"]+)"', markup)[1]
    page.go(f"{page.run('location.origin')}/runs/{run}{link}")
    assert page.run("document.getElementById('detail').dataset.for")


def test_the_colours_are_those_of_all_faces(look):
    """The style sheet has the colours of the table of statuses."""
    from flowdsl.core.words import STATES

    look("/")
    from importlib.resources import files

    style = (files("flowdsl.web") / "static" / "page.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.S)
    for state in STATES.values():
        assert f"--{state.word}: {state.light};" in light
        assert f"--{state.word}: {state.dark};" in dark

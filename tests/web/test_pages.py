"""The pages: what stands on them, for runs of every kind."""

import re
from html import unescape

from attrs import evolve

from flowdsl import Retry, log, step, store, wait_for, workflow
from flowdsl.core.records import Item, Run, Signal, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.core.words import state_of
from flowdsl.errors import StorageUnavailable
from flowdsl.storage import MemoryStorage
from flowdsl.storage.operations import AddSignal, Publish, Reply
from flowdsl.web.graph import graph_of
from flowdsl.web.parts import Calls


@step(retry=Retry(attempts=2, initial=0.0))
def charge(cents):
    """Fails for ever."""
    raise ConnectionError("the <bank> does not answer")


@step
def reserve(items):
    """Calls another step for each item."""
    return [check(item) for item in items]


@step
def check(item):
    """Succeeds."""
    return len(item)


@workflow(id="order-{order}", tags={"env": "prod"})
def checkout(order, items):
    """Fails in its last step."""
    reserve(items)
    charge(4990)


def failed(order="17"):
    """A failed run of :func:`checkout`."""
    try:
        checkout(order, ["shoe", "hat"])
    except ConnectionError:
        return f"order-{order}"
    raise AssertionError("it fails")


def test_the_list_shows_runs_with_status_and_link(client):
    """The list has a row for each run, newest first, with status and a link."""
    failed("1")
    failed("2")
    page = client()
    text = page.get("/").text
    assert re.findall(r'<tr data-run-id="([^"]+)" data-status="([^"]+)"', text) == [
        ("order-2", "failed"),
        ("order-1", "failed"),
    ]
    link = re.search(r'<a data-run-link href="([^"]+)">order-2<', text)[1]
    assert page.get(link).status_code == 200


def test_the_page_of_a_run_shows_steps_as_bars_and_rows(client):
    """A run's steps are bars and rows, with nested ones below."""
    run = failed()
    text = client().get(f"/runs/{run}").text
    assert f'data-run-id="{run}" data-status="failed"' in text
    bars = re.findall(
        r'<a data-bar data-step-key="(\w+)" data-path="([^"]+)" data-status="(\w+)" data-attempts="(\d)"',
        text,
    )
    rows = re.findall(r'<tr data-step-key="(\w+)"', text)
    assert sorted(rows) == sorted(key for key, *_ in bars)
    assert [path.rpartition(".")[2] for _, path, _, _ in bars] == ["reserve", "check", "check", "charge"]
    assert bars[-1][2:] == ("failed", "2")
    assert 'data-total="4"' in text
    assert "the &lt;bank&gt; does not answer" in text
    assert "<bank>" not in text


ERROR = "ConnectionError: no answer\nshop.py:17 in charge\nbank.pay(cents)"


def section(text, name):
    """The part of a page with this id, without marks; "" if there is none."""
    found = re.search(rf'<(\w+) id="{name}".*?</\1>', text, re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", found[0])).split()) if found else ""


def test_the_line_of_the_user_stands_first_in_an_error(client):
    """An error shows file, function and source line first, then type and message, once."""
    storage = MemoryStorage()
    run = Run("x", "shop.sell", "k", status=RunStatus.FAILED, error_preview=ERROR, open_failures=("a" * 40,))
    storage.set_run(run)
    storage.set_step(
        Step("x", "a" * 40, "shop.charge", status=StepStatus.FAILED, preview=ERROR, completed_at=1.0)
    )
    page = client(of=storage)
    text = page.get("/runs/x").text
    assert section(text, "error") == (
        "Error shop.py:17 in charge bank.pay(cents) ConnectionError : no answer in step shop.charge"
    )
    assert text.index("data-user-line") < text.index("no answer</span>")
    assert text.count("data-user-line") == 1
    detail = section(page.get(f"/runs/x?step={'a' * 40}").text, "detail")
    assert "shop.py:17 in charge bank.pay(cents) ConnectionError : no answer" in detail
    assert "shop.py" not in page.get("/").text  # lists have one line


@workflow(id="busy")
def busy():
    """Logs, keeps state, and takes a message."""
    log("hello", who="you")
    store.set("stage", "one")
    store.set("stage", "two")
    return wait_for("go")


@workflow(id="outer")
def outer():
    """Calls a run."""
    return inner(1)


@workflow(id="inner-{n}")
def inner(n):
    """Is called by a run."""
    return check("x")


def test_what_belongs_to_a_run_has_its_parts(client):
    """A run shows log, store and messages, and leaves empty parts out."""
    run = busy.start()
    page = client()
    while "flowdsl.wait_for" not in (text := page.get("/runs/busy").text):
        pass
    assert "hello who=you" in section(text, "logs")
    assert "'two'" in section(text, "store")
    assert section(text, "messages").endswith("The run waits for go .")
    assert "flowdsl signal busy go" in section(text, "next")
    assert section(text, "audit") == section(text, "family") == section(text, "error") == ""
    run.signal("go", {"by": "Eve"}, sender="eve")
    run.result(60)
    text = page.get("/runs/busy").text
    assert "eve taken {'by': 'Eve'}" in section(text, "messages")
    assert section(text, "next") == ""


def test_family_links_lead_to_parent_and_children(client):
    """Links to parent and children name their run."""
    outer()
    page = client()
    assert 'data-run-link data-run-id="inner-1"' in page.get("/runs/outer").text
    assert 'data-run-link data-run-id="outer"' in page.get("/runs/inner-1").text


def test_the_graph_counts_who_called_what(client):
    """The graph counts calls, as a picture and as a table."""
    text = client().get(f"/runs/{failed('33')}").text
    graph = section(text, "graph")
    assert "checkout → reserve 1" in graph
    assert "reserve → check 2" in graph
    assert "×1, 1 failed" in graph


def test_the_arrow_of_a_step_that_calls_itself_lies_inside_the_picture():
    """The arrow of a recursive call leaves its box, comes back to it, and is not cut off."""
    picture = graph_of([Calls("shop.walk", "shop.walk", 3, 0, 1)], "shop.walk", "shop")
    box, arrow = picture.nodes[0], picture.edges[0]
    numbers = [int(number) for number in re.findall(r"\d+", arrow.path)]
    across, down = numbers[::2], numbers[1::2]
    assert across[0] == across[-1] == box.x + box.width
    assert max(across) <= picture.width
    assert max(down) - min(down) >= 12
    assert arrow.x <= picture.width
    assert arrow.x - 8 * len(arrow.text) > max(across) - 30


def test_an_open_step_of_an_interrupted_run_is_drawn(client):
    """A step that was executing when its process died has a bar that a browser draws: its width is not 0."""
    storage = MemoryStorage()
    storage.set_run(Run("x", "shop.sell", "k", status=RunStatus.RUNNING, created_at=1e9))
    storage.set_step(Step("x", "a" * 40, "shop.charge", created_at=1e9, completed_at=1e9 + 5))
    storage.set_step(Step("x", "b" * 40, "shop.post", status=StepStatus.PENDING, created_at=1e9 + 5))
    text = client(of=storage).get("/runs/x").text
    widths = re.findall(r'data-path="shop.post".*?<rect[^>]* width="([\d.]+)%"', text)
    assert widths
    assert min(map(float, widths)) > 0


def test_a_run_that_waits_in_a_queue_is_not_said_to_have_begun(client):
    """The page of a pending run says when it was created, not that it began."""
    storage = MemoryStorage()
    storage.set_run(Run("x", "shop.sell", "k", status=RunStatus.PENDING, created_at=1e9, queue="mail"))
    page = client(of=storage)
    for path in ("/", "/runs/x"):
        text = page.get(path).text
        assert "created" in text.lower()
        assert "began" not in text.lower()


def test_a_run_that_was_undone_says_what_executes_it_again(client):
    """A failed run whose steps were undone says so, and names the only commands that execute it again."""
    storage = MemoryStorage()
    failed_run = Run("x", "shop.sell", "k", status=RunStatus.FAILED, error_preview=ERROR, retryable=False)
    storage.set_run(failed_run)
    storage.set_step(Step("x", "a" * 40, "shop.charge", status=StepStatus.UNDONE, completed_at=1.0))
    page = client(of=storage)
    assert "only retry or fork execute it again" in section(page.get("/runs/x").text, "error")
    storage.set_run(evolve(failed_run, id="y", retryable=True))
    assert "undone" not in section(page.get("/runs/y").text, "error")


def test_values_that_are_hidden_are_shown_as_a_dash(client):
    """Hidden values are dashes."""
    storage = MemoryStorage()
    storage.set_run(Run("x", "shop.sell", "k", status=RunStatus.COMPLETED))
    storage.set_step(Step("x", "a" * 40, "shop.charge", completed_at=1.0))
    text = client(of=storage).get("/runs/x").text
    assert section(text, "facts").startswith("arguments – result –")
    assert "charge ✓ completed 1 <1ms –" in section(text, "steps").replace("1.0s", "<1ms")


def test_replies_and_channels_are_shown(client):
    """Replies and channels are shown, the newest items first."""
    storage = MemoryStorage()
    storage.set_run(Run("x", "shop.sell", "k", generation=3, started_by="boss", queue="mail", priority=5))
    for n, asked in enumerate((True, True, False)):
        storage.commit(
            [AddSignal(Signal(f"s{n}", "x", "quote", preview=f"{n}", asked=asked, created_at=1.0))]
        )
    storage.commit([Reply("x", "s0", b"sealed", "'sold'", True, None)])
    for n in range(1, 31):
        storage.commit([Publish(Item("x", "prices", n, b"sealed", f"{n} EUR", 1.0))])
    text = client(of=storage).get("/runs/x").text
    said = section(text, "messages")
    assert "unread 0 refused: 'sold'" in said
    assert "unread 1 none yet" in said
    channels = section(text, "channels")
    assert channels.startswith("Channels prices , 30 items Number Item At 30 30 EUR")
    assert "10 EUR" not in channels.replace("30 EUR", "")
    assert "generation 3" in section(text, "facts")
    assert "queue mail, priority 5" in section(text, "facts")
    assert "started by boss (deleted)" in section(text, "family")


def test_the_head_of_a_long_run_is_sent_before_its_steps_are_read(client):
    """The top of a long run's page is sent first, and a later error is shown at the end of the page."""

    class Slow(MemoryStorage):
        def list_steps(self, run_id, /, *, after=0, limit=None, payloads=True):
            if limit is None:
                raise StorageUnavailable("the disk is gone")
            return super().list_steps(run_id, after=after, limit=limit, payloads=payloads)

    storage = Slow()
    storage.set_run(
        Run("long", "shop.load", "k", status=RunStatus.COMPLETED, created_at=1e9, finished_at=2e9)
    )
    for n in range(501):
        storage.set_step(Step("long", f"{n:040x}", "shop.row", status=StepStatus.COMPLETED))
    answer = client(of=storage).get("/runs/long")
    assert answer.status_code == 200
    head, _, rest = answer.text.partition("<h1>long</h1>")
    assert "</head>" in head
    assert 'id="facts"' in rest
    assert rest.rstrip().endswith('<p class="error" role="alert">the storage does not answer; try again</p>')
    storage.delete_step("long", f"{500:040x}")
    whole = client(of=storage).get("/runs/long")
    assert int(whole.headers["content-length"]) == len(whole.content)
    assert 'id="timeline" data-total="500"' in whole.text


def test_the_detail_of_a_step_has_its_own_log(client):
    """The detail of a step has only its own log lines."""
    storage = MemoryStorage()
    storage.set_run(Run("x", "shop.sell", "k", status=RunStatus.COMPLETED, created_at=1e9, finished_at=2e9))
    for number, scope, said in ((1, "a" * 40, "in a"), (2, "b" * 40, "in b"), (3, "", "in the run")):
        storage.set_step(Step("x", f"{number:040x}", "flowdsl.log", kind="log", scope=scope, preview=said))
    for key in ("a" * 40, "b" * 40):
        storage.set_step(Step("x", key, "shop.charge", status=StepStatus.COMPLETED, completed_at=1.0))
    page = client(of=storage)
    detail = section(page.get(f"/runs/x?step={'a' * 40}").text, "detail")
    assert "in a" in detail
    assert "in b" not in detail
    assert "in the run" not in detail
    assert all(said in section(page.get("/runs/x").text, "logs") for said in ("in a", "in b", "in the run"))


def test_every_status_can_be_told_without_colour(client):
    """Each status has its sign and word in the list, on the page and in the filter."""
    storage = MemoryStorage()
    for status in RunStatus:
        storage.set_run(Run(str(status), "shop.sell", "k", status=status, created_at=1e9))
    page = client(of=storage)

    def seen(path):
        return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page.get(path).text)))

    # Nobody executes the running one.
    words = {str(status): str(status) for status in RunStatus} | {"running": "interrupted"}
    for name, word in words.items():
        said = f"{state_of(word).sign} {word}"
        assert seen("/").count(said) == 2
        assert said in seen(f"/runs/{name}")
    assert len({state_of(word).sign for word in words.values()}) == len(words)

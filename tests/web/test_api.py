"""The JSON API: the same documents as the command line, pages that lose nothing, and refusals of bad input."""

import json
from urllib.parse import quote

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowdsl import step, workflow
from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus
from flowdsl.core.views import run_view, show_view
from flowdsl.storage import MemoryStorage, open_storage
from web.test_pages import failed


@step
def double(x):
    """Doubles."""
    return 2 * x


@workflow(id="count-{n}")
def count(n):
    """Has *n* steps."""
    return sum(double(i) for i in range(n))


def many(number, **more):
    """A storage with runs, three of each moment."""
    storage = MemoryStorage()
    for n in range(number):
        fields = {"status": RunStatus.COMPLETED, "created_at": float(n // 3), "finished_at": 1e6} | more
        storage.set_run(Run(f"run-{n:03}", f"shop.w{n % 2}", "k", **fields))
    return storage


def paged(page, **query):
    """All rows, page by page."""
    found, cursor = [], ""
    while True:
        answer = page.get("/api/runs", params={**query, "cursor": cursor})
        assert answer.status_code == 200, answer.text
        found += answer.json()["runs"]
        cursor = answer.json()["next"]
        if cursor is None:
            return [row["id"] for row in found]


@pytest.mark.parametrize(
    "query",
    [{}, {"workflow": "shop.w1"}, {"workflow": "w1"}, {"q": "run-0"}, {"until": "1970-01-01T00:00:20+00:00"}],
)
def test_pages_show_every_run_once(client, query):
    """Pages show each run once, in order, with any filter and size."""
    page = client(of=many(100))
    ids = paged(page, limit=500, **query)
    assert ids
    assert ids == sorted(ids, reverse=True)
    assert paged(page, limit=7, **query) == ids


def test_a_page_goes_on_behind_a_run_that_was_deleted_meanwhile(client):
    """The next page is right although the run at the cursor was deleted."""
    storage = many(30)
    page = client(of=storage)
    first = page.get("/api/runs", params={"limit": 10}).json()
    storage.delete_run(first["runs"][-1]["id"])
    answer = page.get("/api/runs", params={"limit": 500, "cursor": first["next"]}).json()
    ids = [row["id"] for row in first["runs"] + answer["runs"]]
    assert ids == [f"run-{n:03}" for n in reversed(range(30))]


def test_rows_are_those_of_the_command_line(client, runtime):
    """JSON rows and runs equal those of ``flowdsl runs`` and ``flowdsl show``, field by field."""
    run = failed()
    page = client()
    record = runtime.storage.get_run(run)
    assert page.get("/api/runs").json()["runs"] == [json.loads(json.dumps(run_view(record, "failed")))]
    shown = show_view(record, "failed", runtime.storage.list_steps(run))
    document = page.get(f"/api/runs/{run}").json()
    assert {name: document[name] for name in shown} == json.loads(json.dumps(shown))
    assert document["next"][0][:3] == ["flowdsl", "retry", run]


def test_steps_come_in_pages(client):
    """``steps_after`` and ``limit`` give each step once."""
    run = count.start(25)
    run.result()
    page = client()
    whole = page.get(f"/api/runs/{run.id}").json()["steps"]
    found, after = [], 0
    while steps := page.get(f"/api/runs/{run.id}", params={"steps_after": after, "limit": 10}).json()[
        "steps"
    ]:
        found += steps
        after = steps[-1]["seq"]
    assert found == whole
    assert len(found) == 25


def test_the_history_is_what_export_gives(client, runtime):
    """The history is the export, as a file with a plain name for any id."""
    run = failed('ä/../\\ "x"\r\n')
    answer = client().get(f"/api/runs/{quote(run, safe='')}/history")
    assert answer.json() == json.loads(json.dumps(runtime.export(run)))
    assert answer.headers["content-disposition"].startswith('attachment; filename="order-')
    assert answer.headers["content-disposition"].isascii()
    assert not set("/\\ \r\n") & set(answer.headers["content-disposition"].partition("filename=")[2])


IDS = [
    ".",
    "..",
    "a/b",
    "a%2Fb",
    "a b",
    "?x=1",
    "#top",
    "ü",
    "a;b,c&d=e+f",
    "'\"<b>",
    "//x",
    "x/",
    "/",
    "\x01\t",
    "\u202e",
    "%",
    "~",
    "cancel",
    "runs",
]


@pytest.mark.parametrize(
    ("run_id", "mount"), [(one, "/flow ä/x") for one in IDS] + [(one, "") for one in IDS[::4]]
)
def test_every_id_has_an_address(client, run_id, mount):
    """Any id is one segment of an address, and links from the list lead to the run, below any prefix."""
    storage = MemoryStorage()
    storage.set_run(Run(run_id, "shop.w", "k", status=RunStatus.COMPLETED, created_at=1.0, finished_at=2.0))
    storage.set_run(Run("other", "shop.w", "k", status=RunStatus.COMPLETED, created_at=1.0, parent=run_id))
    page = client(of=storage)
    prefix = quote(mount)

    def get(path):
        page._transport.root_path = mount
        return page.get(path)

    text = get(prefix + "/").text
    links = [part.split('"')[0] for part in text.split('<a data-run-link href="')[1:]]
    assert len(links) == 2
    for link in links:
        assert link.startswith(f"{prefix}/runs/")
        answer = get(link.replace("&amp;", "&"))
        assert answer.status_code == 200, link
    family = get(f"{prefix}/runs/other").text
    link = family.split("<a data-run-link")[1].split('href="')[1].split('"')[0].replace("&amp;", "&")
    assert get(link).status_code == 200
    query = f"/?id={run_id}" if run_id in (".", "..") else f"/{quote(run_id, safe='')}"
    assert get(f"{prefix}/api/runs{query}").json()["id"] == run_id


def test_filters_select(client):
    """Filters select by status, also interrupted, and by tag, time and text."""
    storage = MemoryStorage()
    base = Run("base", "shop.pay", "k", created_at=100.0, status=RunStatus.COMPLETED)
    for run in (
        evolve(base, id="done", tags={"env": "prod", "eu": "x"}),
        evolve(base, id="broken", status=RunStatus.FAILED, tags=("eu",), workflow="shop.order"),
        evolve(base, id="lost", status=RunStatus.RUNNING, created_at=200.0),
    ):
        storage.set_run(run)
    page = client(of=storage)

    def ids(**query):
        return sorted(row["id"] for row in page.get("/api/runs", params=query).json()["runs"])

    assert ids(status="failed") == ["broken"]
    assert ids(status=["failed", "completed"]) == ["broken", "done"]
    assert ids(status="interrupted") == ["lost"]
    assert ids(status="running") == []
    assert ids(status=["running", "interrupted"]) == ["lost"]
    assert ids(tag="eu") == ["broken", "done"]
    assert ids(tag="env=prod") == ["done"]
    assert ids(tag=["env=prod", "eu"]) == ["done"]
    assert ids(tag="env=test") == []
    assert ids(workflow="order") == ids(workflow="shop.order") == ids(q="ORDER") == ["broken"]
    assert ids(q="prod") == ["done"]
    assert ids(since="1970-01-01T00:02:00+00:00") == ["lost"]
    assert ids(until="1970-01-01T00:02:00+00:00") == ["broken", "done"]
    assert ids(since="2 hours") == []
    assert ids(q="", workflow="", since="", status="") == ["broken", "done", "lost"]


@pytest.mark.parametrize("text", ["%", "_", "\\", "100%", "a_b", "É", "ENV", "prod", "SELL", "nothing"])
def test_the_search_means_what_is_typed(client, tmp_path, text):
    """The search takes no character as a wildcard, ignores case in ASCII, and treats new and old runs
    alike."""
    storages = [MemoryStorage(), open_storage(f"sqlite:///{tmp_path}/flow.db")]
    ids = [*("100% sure", "a_b", "axb", "back\\slash", "É", "é"), *(f"other-{n}" for n in range(3))]
    found = []
    for storage in storages:
        for n, run_id in enumerate(ids):
            tags = {"env": "prod"} if n == 1 else ("env",) if n == 2 else ()
            workflow = "shop.sell" if n == 3 else "shop.pay"
            storage.set_run(Run(run_id, workflow, "k", created_at=float(n), tags=tags))
        for limit in (1, 2, 500):
            found.append(paged(client(of=storage), q=text, limit=limit))
        storage.close()
    assert len({tuple(one) for one in found}) == 1
    folded = text.lower() if text.isascii() else text
    wanted = {"ENV": {"a_b", "axb"}, "prod": {"a_b"}, "SELL": {"back\\slash"}}.get(text)
    assert set(found[0]) == (wanted or {run_id for run_id in ids if folded in run_id})


BAD = [
    "status=odd", "limit=0", "limit=501", "limit=x", "limit=-1", "limit=1e3", "limit=" + "9" * 400, "limit=%D9%A1",
    "since=yesterday", "until=-1", "since=9999999 years", "cursor=x", "cursor=eyJ4IjoxfQ", "cursor=WzEsMl0", "cursor=WzFlOTk5LCJ4Il0",
    "cursor=%00", "q=%ff", "q=" + "x" * 2000, "&".join(["tag=x"] * 300),
]  # fmt: skip


@pytest.mark.parametrize("query", BAD)
def test_bad_filters_are_refused_in_one_line(client, query):
    """A bad filter is 400 in one line without an echo, on the page and in the API."""
    for address in ("/api/runs", "/"):
        answer = client().get(f"{address}?{query}")
        assert answer.status_code == 400
        said = answer.json()["error"] if address == "/api/runs" else ""
        assert "\n" not in said
        assert "yesterday" not in answer.text


@pytest.mark.parametrize(
    "query", ["steps_after=x", "steps_after=-1", "limit=0", "page=x", "begin=2", "end=nan", "name=%ff"]
)
def test_bad_views_are_refused(client, query):
    """A bad view of a run is 400, on the page and in the API."""
    run = failed()
    address = f"/api/runs/{run}" if query[0] in "sl" else f"/runs/{run}"
    assert client().get(f"{address}?{query}").status_code == 400


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(max_size=20),
    st.sampled_from(["/", "/api/runs", "/runs/x", "/api/runs/x", "/api/runs/x/events"]),
    st.sampled_from(["q", "cursor", "status", "tag", "id", "limit", "name", "page", "since"]),
)
def test_nothing_that_is_asked_breaks_the_page(client, text, address, name):
    """Any text in any field is answered, and never with 500."""
    query = quote(text.encode("utf-8", "surrogatepass"), safe="")
    for url in (f"{address}?{name}={query}", f"{address}{query}", f"{address}?{query}"):
        assert client().get(url).status_code in (200, 400, 404)


def test_nothing_of_address_or_storage_stands_in_an_error(client):
    """A 404 echoes neither the address nor the storage."""
    failed("secret-order")
    for address in (
        "/runs/echo-me",
        "/api/runs/echo-me",
        "/echo-me",
        "/api/runs/echo-me/history",
        "/api/runs/echo-me/events",
    ):
        answer = client().get(address)
        assert answer.status_code == 404
        assert "echo-me" not in answer.text
        assert "secret-order" not in answer.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "POST"])
def test_methods_that_an_address_has_not_are_405(client, method):
    """A method that an address does not have is 405 with ``Allow``."""
    run = failed()
    page = client(allow_actions=True)
    answer = page.request(method, f"/runs/{run}")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    answer = page.request("GET" if method == "POST" else method, f"/runs/{run}/cancel")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_head_is_get_without_the_body(client):
    """HEAD has the status and headers of GET."""
    run = failed()
    for address in ("/", f"/runs/{run}", "/api/runs", "/nowhere"):
        get, head = client().get(address), client().head(address)
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers["content-length"] == get.headers["content-length"]


def test_lone_surrogates_and_control_characters_are_shown_escaped(client):
    """Lone surrogates and control characters are shown escaped."""
    storage = MemoryStorage()
    storage.set_run(Run("x", "shop.\udcff\x00", "k", args_preview="\ud800\x1b[31m", tags=("\udfff",)))
    storage.set_step(Step("x", "a" * 40, "p\udcff", args="\ud800", preview="\x00"))
    page = client(of=storage)
    for address in ("/", "/runs/x", "/api/runs", "/api/runs/x"):
        answer = page.get(address)
        assert answer.status_code == 200
        assert b"\x00" not in answer.content
        assert b"<code>\x1b" not in answer.content

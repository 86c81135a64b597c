"""Records that the seal refuses, or that are damaged: a page says which, and the others are shown."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from hostile import furnish

SECRET = "only we know"


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database whose rows are sealed."""
    path = tmp_path_factory.mktemp("sealed") / "flow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWDSL_SECRET_KEY", SECRET)
        furnish(f"sqlite:///{path}")
    return path


@pytest.fixture
def altered(sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: Any) -> Callable[..., Any]:
    """A client of a copy in which somebody has changed something."""

    def change(*statements: str, unsealed: bool = False, **options: Any) -> Any:
        monkeypatch.setenv("FLOWDSL_SECRET_KEY", "" if unsealed else SECRET)
        path = Path(shutil.copy(sealed, tmp_path / "flow.db"))
        with closing(sqlite3.connect(path)) as database:
            for statement in statements:
                database.execute(statement)
            database.commit()
        return client(of=f"sqlite:///{path}", **options)

    return change


def told(answer: Any) -> str:
    """What an answer says; a page begins its sentence with a capital."""
    return unescape(answer.text).casefold()


RENAMED = "UPDATE runs SET workflow = 'shop.evil' WHERE id = 'order-1'"


def test_the_page_of_an_altered_run_says_that_it_is_refused(altered, tmp_path):
    """The page of an altered run is 422, as HTML and JSON, and does not show where the database is."""
    page = altered(RENAMED, allow_actions=True)
    for address in (
        "/runs/order-1",
        "/api/runs/order-1",
        "/api/runs/order-1/events",
        "/api/runs/order-1/history",
    ):
        answer = page.get(address)
        assert answer.status_code == 422
        assert "run order-1 is not as it was written: its seal does not fit" in told(answer)
        assert str(tmp_path) not in answer.text
    assert page.post("/runs/order-1/cancel", headers={"Accept": "application/json"}).status_code == 422
    assert page.get("/runs/order-2").status_code == 200


def test_the_list_shows_the_others_and_names_the_altered_one(altered):
    """The list shows the other runs, and names the altered one once, in JSON under ``refused``."""
    page = altered(RENAMED)
    text = page.get("/").text
    assert 'data-run-id="order-2"' in text
    assert 'data-run-id="order-1"' not in text
    assert text.count("run order-1 is not as it was written") == 1
    document = page.get("/api/runs").json()
    assert {row["id"] for row in document["runs"]} == {"order-2", "part-1", "part-2", "queued"}
    (said,) = (text for text in document["refused"] if "order-1" in text)
    assert "its seal does not fit" in said


def test_a_run_of_the_family_that_is_altered_is_named(altered):
    """An altered parent or child is named on the pages of the others."""
    page = altered(RENAMED)
    assert "run order-1 is not as it was written" in page.get("/runs/part-1").text
    page = altered("UPDATE runs SET workflow = 'shop.evil' WHERE id = 'part-1'")
    assert "run part-1 is not as it was written" in page.get("/runs/order-1").text


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE steps SET preview = 'x' WHERE path LIKE '%price'", "step hostile.price"),
        ("UPDATE signals SET name = 'approved'", "message 'approved' of run order-2"),
        ("UPDATE items SET preview = 'x'", "item 1 of channel 'news' of run order-2"),
        ("UPDATE steps SET status = 'done'", "a step of run 'order-2' is damaged"),
    ],
)
def test_whatever_of_a_run_is_altered_is_named(altered, statement, said):
    """An altered or damaged step, message or item is named."""
    answer = altered(statement).get("/runs/order-2")
    assert answer.status_code == 422
    assert said.casefold() in told(answer)


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("runs", "args_preview", "x'ff'"),
        ("runs", "created_at", "'soon'"),
        ("steps", "created_at", "9e999"),
        ("steps", "preview", "x'ff'"),
        ("steps", "more", "'no JSON'"),
        ("signals", "created_at", "'soon'"),
        ("signals", "preview", "x'ff'"),
    ],
)
def test_a_value_that_its_column_cannot_have_is_damage(table, column, value, altered):
    """A value that its column cannot have counts as damage, without a secret too."""
    page = altered(f"UPDATE {table} SET {column} = {value}", unsealed=True)
    answer = page.get("/runs/order-2")
    assert answer.status_code == 422
    assert "run 'order-2' is damaged" in told(answer)
    assert page.get("/").status_code == 200


@pytest.mark.parametrize("column", ["status", "tags", "open_failures"])
def test_a_row_that_makes_no_run_hides_no_other(column, altered):
    """A row that is no valid run is named in the list and on its page, and hides no other."""
    page = altered(f"UPDATE runs SET {column} = '?' WHERE id = 'order-1'", unsealed=True)
    listed = page.get("/")
    assert listed.status_code == 200
    assert 'data-run-id="order-2"' in listed.text
    for answer in (listed, page.get("/runs/order-1")):
        assert "run 'order-1' is damaged" in told(answer)


@pytest.mark.parametrize(
    ("statement", "kind", "said"),
    [
        ("UPDATE schedules SET spec = 'x'", "schedules", "schedule 'nightly' is not as it was written"),
        ("UPDATE workers SET spec = 'x'", "workers", "worker 'vm|b|n|7|s|t' is damaged"),
    ],
)
def test_the_other_lists_name_what_they_leave_out(altered, statement, kind, said):
    """The tables of schedules and workers name what they leave out."""
    answer = altered(statement).get(f"/{kind}")
    assert answer.status_code == 200
    assert said.casefold() in told(answer)


def test_an_altered_queue_is_refused_by_name(altered):
    """The page of queues is refused with the name of the altered queue, because nobody may claim."""
    answer = altered("UPDATE queues SET spec = '{}'").get("/queues")
    assert answer.status_code == 422
    assert "queue 'mail' is not as it was written" in told(answer)


def test_events_end_where_a_step_is_refused(altered):
    """The events end at a refused step, and the page of the run says why."""
    page = altered("UPDATE steps SET preview = 'x' WHERE path LIKE '%price'")
    answer = page.get("/api/runs/order-2/events")
    assert (answer.status_code, answer.text) == (200, "")

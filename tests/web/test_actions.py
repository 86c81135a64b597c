"""What a reader may do: only where it is allowed, only from our own forms, and with an entry in the audit."""

import re

import pytest

from flowdsl import Retry, Runtime, step, wait_for, workflow
from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.storage import MemoryStorage
from web.conftest import TOKEN
from web.test_pages import failed

JSON = {"Accept": "application/json"}
works = False


@step
def fragile():
    """Fails until it works."""
    if not works:
        raise OSError("not yet")
    return "mended"


@workflow(id="fragile-{n}")
def breaks(n):
    """Fails in its step."""
    return fragile.options(retry=Retry(attempts=1))()


@workflow(id="asks-{n}")
def asks(n):
    """Waits for a message."""
    return wait_for("answer")


def token_of(text):
    """The CSRF token of a page."""
    return re.search(r'<meta name="csrf-token" content="([^"]+)"', text)[1]


def broken(n=1):
    """A failed run of :func:`breaks`."""
    with pytest.raises(OSError, match="not yet"):
        breaks(n)
    return f"fragile-{n}"


def test_without_actions_nothing_can_be_sent(client):
    """Without actions there is no form and no token, and a POST is refused with the remedy."""
    run = failed()
    page = client()
    for address in ("/", f"/runs/{run}"):
        text = page.get(address).text
        assert 'method="post"' not in text
        assert "csrf" not in text
        assert "<dialog" not in text
    answer = page.post(f"/runs/{run}/cancel")
    assert answer.status_code == 403
    assert "--allow-actions" in answer.text


def test_every_form_has_the_token_of_the_page(client):
    """The list and a run have the token, each form that posts has it, and only a dialog holds such a form."""
    run = failed()
    page = client(allow_actions=True)
    assert token_of(page.get("/").text)
    text = page.get(f"/runs/{run}").text
    forms = re.findall(r'<form method="post".*?</form>', text, re.S)
    assert len(forms) >= 3
    for form in forms:
        assert f'name="csrf_token" value="{token_of(text)}"' in form
        assert "data-confirm" in form
    outside = re.sub(r"<dialog.*?</dialog>", "", text, flags=re.S)
    assert 'method="post"' not in outside
    assert "<dialog" in text
    assert run in text[text.index("<dialog") :]


def test_a_post_needs_the_token_of_a_form(client):
    """A cookie alone is not enough for a POST, because another page could make a browser send it."""
    run = broken()
    page = client(allow_actions=True, show_token=False)
    page.get("/", params={"token": TOKEN})
    csrf = token_of(page.get("/").text)
    for sent in ({}, {"csrf_token": ""}, {"csrf_token": csrf[:-1]}, {"csrf_token": TOKEN}):
        assert page.post(f"/runs/{run}/cancel", data=sent).status_code == 403
    assert page.post(f"/runs/{run}/fork", data={"csrf_token": csrf, "before": "fragile"}).status_code == 303
    answer = page.post(f"/runs/{run}/fork", data={"before": "fragile"}, headers={"X-CSRF-Token": csrf})
    assert answer.status_code == 303
    assert client(allow_actions=True).post(f"/runs/{run}/fork", data={"before": "fragile"}).status_code == 303


def test_the_token_of_forms_differs_from_the_other_secrets(client):
    """The CSRF token reveals nothing about the other secrets."""
    page = client(allow_actions=True, show_token=False)
    cookie = page.get("/", params={"token": TOKEN}).headers["set-cookie"]
    assert token_of(page.get("/").text) not in cookie
    assert TOKEN not in page.get("/").text


def test_cancel_stops_a_run(client):
    """Cancel redirects to the run, gives JSON its row, and a second time is 409."""
    run = asks.start(1)
    page = client(allow_actions=True)
    answer = page.post("/runs/asks-1/cancel")
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs/asks-1")
    with pytest.raises(Exception, match="cancelled"):
        run.result(60)
    answer = page.post("/runs/asks-1/cancel", headers=JSON)
    assert answer.status_code == 409
    assert "\n" not in answer.json()["error"]


def test_retry_executes_the_failed_steps_again(client, monkeypatch):
    """Retry executes the failed steps here, if the code is known."""
    run = broken(2)
    monkeypatch.setitem(globals(), "works", True)
    answer = client(allow_actions=True).post(f"/runs/{run}/retry", headers=JSON)
    assert (answer.status_code, answer.json()["id"]) == (200, run)
    assert breaks(2) == "mended"


def test_retry_without_the_code_names_app(client):
    """Retry without the code is 409, and names ``--app``."""
    storage = MemoryStorage()
    storage.set_run(Run("x", "nowhere.work", "k", status=RunStatus.FAILED))
    answer = client(of=storage, allow_actions=True).post("/runs/x/retry", headers=JSON)
    assert answer.status_code == 409
    assert "--app" in answer.json()["error"]


def test_fork_leads_to_the_new_run(client):
    """Fork redirects to the new run, under the given id, and an id in use is 409."""
    run = broken(3)
    page = client(allow_actions=True)
    answer = page.post(f"/runs/{run}/fork", data={"before": "fragile", "id": "a/new one"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs/a%2Fnew%20one")
    assert page.get(answer.headers["location"]).status_code == 200
    assert page.post(f"/runs/{run}/fork", data={"before": "fragile", "id": "a/new one"}).status_code == 409
    assert page.post(f"/runs/{run}/fork", data={"before": "nothing"}).status_code == 404
    assert page.post(f"/runs/{run}/fork", data={}).status_code == 400


def test_a_message_reaches_the_run(client):
    """A message is sent with its payload; bad JSON and a missing name are 400."""
    run = asks.start(4)
    page = client(allow_actions=True)
    for data in (
        {"name": ""},
        {"name": "answer", "payload": "{"},
        {"name": "answer", "payload": "NaN"},
        {"name": "answer", "payload": "[" * 100_000},
    ):
        assert page.post("/runs/asks-4/signal", data=data).status_code == 400
    assert (
        page.post("/runs/asks-4/signal", data={"name": "answer", "payload": '{"by": "Eve"}'}).status_code
        == 303
    )
    assert run.result(60) == {"by": "Eve"}
    assert page.post("/runs/asks-4/signal", data={"name": "answer"}).status_code == 409


def doubtful():
    """A run whose step was executing when its process died."""
    storage = MemoryStorage()
    storage.set_run(Run("doubt", "shop.pay", "k", status=RunStatus.RUNNING))
    storage.set_step(
        Step("doubt", "a" * 40, "shop.charge", status=StepStatus.PENDING, attempts=0, extra='{"intent": 1}')
    )
    return storage


@pytest.mark.parametrize(
    ("said", "status", "outcome"),
    [
        ({"result": '{"paid": 1}'}, 303, StepStatus.COMPLETED),
        ({"result": "null"}, 303, StepStatus.COMPLETED),
        ({"error": "the bank said no"}, 303, StepStatus.FAILED),
        ({"rerun": "1"}, 303, StepStatus.PENDING),
        ({}, 400, None),
        ({"result": "1", "rerun": "1"}, 400, None),
        ({"result": "nope"}, 400, None),
    ],
)
def test_a_person_says_what_came_of_a_step_in_doubt(client, said, status, outcome):
    """Resolve takes exactly one of result, error and rerun."""
    storage = doubtful()
    page = client(of=storage, allow_actions=True)
    assert "Resolve…" in page.get("/runs/doubt").text
    assert page.post("/runs/doubt/resolve", data={"step": "charge", **said}).status_code == status
    found = storage.get_step("doubt", "a" * 40)
    assert found.status is (outcome or StepStatus.PENDING)


def test_what_is_too_large_is_refused(client):
    """A body above a megabyte is 413, also without a length."""
    run = broken(5)
    page = client(allow_actions=True)
    assert page.post(f"/runs/{run}/signal", content=b"a=" + b"x" * (1 << 20)).status_code == 413
    assert page.post(f"/runs/{run}/signal", content=iter([b"x" * 600_000] * 3)).status_code == 413


@pytest.mark.parametrize(
    "body", [b"\xff\xfe", b"name=%ff", b"a=1&" * 500, b"{}", b"\x00", b"%", b"name=%ED%A0%80"]
)
def test_odd_bodies_are_400(client, body):
    """An odd body is answered with 400."""
    run = broken(6)
    answer = client(allow_actions=True).post(f"/runs/{run}/signal", content=body)
    assert answer.status_code == 400
    other = client(allow_actions=True).post(
        f"/runs/{run}/signal", content=body, headers={"Content-Type": "application/json"}
    )
    assert other.status_code == 400


def test_an_action_on_no_run_is_404(client):
    """An action on an unknown id is 404, and makes nothing."""
    page = client(allow_actions=True)
    for action in ("cancel", "retry", "fork", "signal", "resolve"):
        assert (
            page.post(
                f"/runs/nobody/{action}", data={"before": "x", "name": "x", "step": "x", "rerun": "1"}
            ).status_code
            == 404
        )
    assert page.post("/runs/nobody/explode").status_code == 404


def test_reading_changes_nothing_in_the_file(tmp_path, client):
    """GET and HEAD leave the database file byte for byte as it is."""
    path = tmp_path / "flow.db"
    with Runtime(f"sqlite:///{path}"):
        run = failed("9")
    before = path.read_bytes()
    with Runtime(f"sqlite:///{path}") as rt:
        page = client(of=rt, allow_actions=True)
        for address in (
            "/",
            f"/runs/{run}",
            "/api/runs",
            f"/api/runs/{run}",
            f"/api/runs/{run}/history",
            f"/api/runs/{run}/events",
            f"/runs/{run}/cancel",
        ):
            page.get(address)
            page.head(address)
        assert path.read_bytes() == before
    assert path.read_bytes() == before


def test_closing_the_page_leaves_what_was_passed_in_open(runtime):
    """Closing the page leaves a given runtime or storage open."""
    from flowdsl.web import app

    app(runtime).close()
    assert runtime.run("nobody") is None
    storage = MemoryStorage()
    app(storage).close()
    assert storage.get_run("nobody") is None


def test_every_action_stands_in_the_audit(client, monkeypatch):
    """Each action is in the audit, by ``web``."""
    page = client(allow_actions=True)
    run = broken(8)
    monkeypatch.setitem(globals(), "works", True)
    page.post(f"/runs/{run}/fork", data={"before": "fragile", "id": "f8"})
    page.post(f"/runs/{run}/retry")
    assert breaks(8) == "mended"
    waiting = asks.start(8)
    page.post("/runs/asks-8/signal", data={"name": "other"})
    page.post("/runs/asks-8/cancel")
    with pytest.raises(Exception, match="cancelled"):
        waiting.result(60)
    storage = doubtful()
    client(of=storage, allow_actions=True).post("/runs/doubt/resolve", data={"step": "charge", "rerun": "1"})
    found = {}
    for rt, name in (
        (page.app.runtime, "f8"),
        (page.app.runtime, run),
        (page.app.runtime, "asks-8"),
        (Runtime(storage), "doubt"),
    ):
        found[name] = [(entry.action, entry.who) for entry in rt.run(name).audit()]
    assert ("fork", "web") in found["f8"]
    assert ("retry", "web") in found[run]
    assert found["asks-8"] == [("signal", "web"), ("cancel", "web")]
    assert found["doubt"] == [("resolve", "web")]
    assert "<td>web</td>" in page.get("/runs/asks-8").text


def test_json_is_answered_with_the_row(client):
    """A JSON request gets the row of the list."""
    run = broken(7)
    answer = client(allow_actions=True).post(
        f"/runs/{run}/fork", data={"before": "fragile", "id": "f7"}, headers=JSON
    )
    assert answer.status_code == 200
    assert answer.json()["id"] == "f7"
    assert answer.json()["forked_from"] == run

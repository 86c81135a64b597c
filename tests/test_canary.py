"""A secret that passes through every part of a run is found in none of the places that people read."""

import io
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flowdsl import (
    Retry,
    Runtime,
    Schedule,
    continue_as_new,
    current_step,
    log,
    publish,
    race,
    receive,
    schedule,
    sleep,
    step,
    store,
    wait_for,
    workflow,
)
from flowdsl.cli._app import cli
from flowdsl.codecs import Compressed, Encrypted, JsonCodec, PickleCodec, Signed

WORDS = (
    *(
        "argument",
        "keyword",
        "result",
        "failed",
        "retried",
        "handled",
        "undone",
        "stored",
        "pushed",
        "logged",
    ),
    *(
        "field",
        "signal",
        "child",
        "scheduled",
        "hook",
        "callback",
        "mapped",
        "resolved",
        "default",
        "attribute",
    ),
)


def secret(word: str) -> str:
    return f"canary-{word}-canary"


@step(retry=Retry(attempts=2, initial=0))
def refund(text: str) -> None:
    raise ValueError(secret("undone"))


@step(undo=refund)
def work(text: str, *, more: str = "", least: str = secret("default")) -> Any:
    return {"here": secret("result")}


@step(retry=Retry(attempts=2, initial=0))
def flaky(text: str) -> None:
    error = ConnectionError(secret("retried"))
    error.detail = secret("attribute")  # type: ignore[attr-defined]
    raise error


@step(mode="send")
def sent(text: str) -> None:
    raise KeyError(secret("failed"))


@step
def mapped(text: str) -> str:
    return secret("mapped")


@workflow
def child(text: str) -> str:
    return secret("child")


def ended(run: Any, *error: Any) -> None:
    raise RuntimeError(secret("callback"))


class Loud:
    def on_step_complete(self, step: Any, result: Any) -> None:
        raise RuntimeError(secret("hook"))


@workflow(id="patient", on_complete=ended, on_error=ended)
def patient(text: str, fail: bool) -> Any:
    store.set("k", secret("stored"))
    store.push("list", secret("pushed"))
    log(secret("logged"), value=secret("field"), big=10**5000)
    wait_for("letter")
    work(text, more=secret("keyword"))
    mapped.map([text, secret("argument")])
    child(secret("child"))
    schedule(mapped, secret("scheduled")).result()
    sleep(0)
    sent(text)
    try:
        flaky(text)
    except ConnectionError as error:
        if fail:
            raise ValueError(secret("handled")) from error
    return secret("result")


def executed(folder: Path, fail: bool, monkeypatch: Any, **options: Any) -> dict[str, str]:
    """Everything that anybody can read after such a run: files, log lines, what commands print."""
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(logging.Formatter("%(message)s %(run)s", defaults={"run": ""}))
    logger = logging.getLogger("flowdsl")
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "level", logging.INFO)
    url = f"sqlite:///{folder}/flow.db"
    with Runtime(url, hooks=[Loud()], **options) as runtime:
        run = patient.start(secret("argument"), fail)
        run.signal("letter", secret("signal"))
        try:
            run.result(timeout=60)
        except ValueError:
            assert fail
        logged = run.logs()
        seen = {"html": run._repr_html_(), "export": json.dumps(runtime.export("patient"))}
        files = {name: (folder / name).read_bytes().decode("latin-1") for name in os.listdir(folder)}
    assert (logged[0].message, logged[0].fields["value"]) == (secret("logged"), secret("field"))
    for command in (
        ["show", "patient"],
        ["steps", "patient"],
        ["runs"],
        ["logs", "patient"],
        ["show", "patient", "--json"],
    ):
        shown = CliRunner().invoke(cli, ["--storage", url, *command])
        assert shown.exit_code == 0, shown.output
        seen[" ".join(command)] = shown.output
    return {**files, **seen, "log": lines.getvalue()}


@pytest.mark.parametrize("fail", [False, True], ids=["completed", "failed"])
@pytest.mark.parametrize(
    "codec",
    [
        Encrypted(PickleCodec(), b"k" * 32),
        Encrypted(JsonCodec(), b"k" * 32),
        Signed(Compressed(Encrypted(PickleCodec(), b"k" * 32)), b"s"),
    ],
    ids=repr,
)
def test_encrypted_leaves_nothing_readable(codec: Any, fail: bool, tmp_path: Path, monkeypatch: Any) -> None:
    """With ``Encrypted`` no value is in the database, log, export, HTML, output or log lines, except the
    message of ``log()`` in logging."""
    seen = executed(tmp_path, fail, monkeypatch, codec=codec)
    found = {(place, word) for place, text in seen.items() for word in WORDS if secret(word) in text}
    assert found <= {("log", "logged")}


@pytest.mark.parametrize("fail", [False, True], ids=["completed", "failed"])
def test_without_previews_only_log_lines_are_readable(fail: bool, tmp_path: Path, monkeypatch: Any) -> None:
    """With ``previews=False`` values are only in payloads, never in texts."""
    seen = executed(tmp_path, fail, monkeypatch, previews=False)
    texts = {
        place: text for place, text in seen.items() if not place.startswith("flow.db") and place != "export"
    }
    found = {(place, word) for place, text in texts.items() for word in WORDS if secret(word) in text}
    assert {word for _, word in found} <= {"logged", "field"}


def test_with_previews_they_are(tmp_path: Path, monkeypatch: Any) -> None:
    """By default arguments, results and errors are shown, so the canary can be seen."""
    seen = executed(tmp_path, True, monkeypatch)
    assert secret("argument") in seen["show patient"]
    assert secret("handled") in seen["show patient"]
    assert secret("callback") in seen["log"]


TALK = ("asked", "replied", "refused", "published", "beat", "memo", "raced", "detached", "anew", "queued", "ticked", "done")  # fmt: skip


@step(heartbeat=60)
def beats(text: str) -> str:
    current_step().heartbeat({"at": secret("beat")})
    return text


@step(memo=True)
def remembered(text: str) -> str:
    return text


@workflow
def apart(text: str) -> str:
    return text


@workflow(id="talker")
def talker(text: str) -> str:
    if text != secret("anew"):
        receive("question").reply(secret("replied"))
        receive("other").refuse(ValueError(secret("refused")))
        race(mapped.submit(secret("raced")), mapped.submit(secret("raced") * 2))
        apart.options(detached=True).start(secret("detached")).result()
        continue_as_new(secret("anew"))
    publish("channel", secret("published"))
    return beats(remembered(secret("memo")))


@pytest.mark.parametrize(
    "options", [{"codec": Encrypted(PickleCodec(), b"k" * 32)}, {"previews": False}], ids=["encrypted", "off"]
)
def test_no_verb_leaves_a_value_readable(options: Any, tmp_path: Path, caplog: Any) -> None:
    """Messages, replies, heartbeats, memos, channels, other runs, schedules and generations leave no readable
    value."""
    url = f"sqlite:///{tmp_path}/flow.db"
    caplog.set_level(logging.INFO, "flowdsl")
    with Runtime(url, **options) as runtime:
        run = talker.start(secret("argument"))
        assert run.ask("question", secret("asked"), timeout=60) == secret("replied")
        with pytest.raises(ValueError, match=secret("refused")):
            run.ask("other", secret("asked"), timeout=60)
        assert run.result(timeout=60) == secret("memo")
        apart.enqueue(secret("queued"))
        runtime.schedules.put(Schedule("yearly", apart, cron="0 0 1 1 *", args=(secret("ticked"),)))
        seen = {"html": run._repr_html_(), "audit": repr(run.audit()), "log": caplog.text}
        files = [(tmp_path / name).read_bytes().decode("latin-1") for name in os.listdir(tmp_path)]
    for command in (
        ["show", "talker"],
        ["steps", "talker"],
        ["runs"],
        ["stream", "talker", "channel"],
        ["schedules"],
    ):
        seen[command[0]] = CliRunner().invoke(cli, ["--storage", url, *command]).output
    if "codec" in options:
        seen["files"] = "".join(files)
    words = (*TALK, "argument", "mapped")
    assert not {(place, word) for place, text in seen.items() for word in words if secret(word) in text}

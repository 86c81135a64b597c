"""``flowdsl completion``: what a shell completes."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import forked
import pytest
from hostile import furnish

from flowdsl import Runtime
from flowdsl.core.records import Run
from flowdsl.storage import open_storage


@pytest.fixture
def offered(folder):
    """What is offered for a line, as the script of a shell asks for it."""

    def ask(line, shell="fish"):
        words = line.split(" ")
        asked = {
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
            "_FLOWDSL_COMPLETE": f"{shell}_complete",
        }
        if shell == "fish":
            asked["COMP_CWORD"] = words[-1]
        done = forked.run(
            [sys.executable, "-m", "flowdsl"], env={**os.environ, **asked}, capture_output=True, text=True
        )
        assert done.stderr == ""
        assert done.returncode == 0
        return [one.partition(",")[2].partition("\t")[0] for one in done.stdout.splitlines() if one]

    return ask


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_printed(shell, invoke, answer):
    """Each shell gets the script that its manual asks for."""
    script = invoke("completion", shell).stdout
    assert f"_FLOWDSL_COMPLETE={shell}_complete" in script
    assert answer("completion", shell)["script"] + "\n" == script


def test_bash_takes_the_script(shop, folder, invoke):
    """In a real bash, a command, an option and an id are completed."""
    shop.sell("x", id="order-17")
    (folder / "flowdsl").write_text(f'#!/bin/sh\nexec {sys.executable} -m flowdsl "$@"\n')
    (folder / "flowdsl").chmod(0o755)
    program = """
        eval "$SCRIPT"
        for line in "flowdsl sho" "flowdsl show or" "flowdsl runs --sta"; do
            COMP_WORDS=($line) COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
            _flowdsl_completion flowdsl 2>/dev/null
            echo "${COMPREPLY[@]}"
        done
    """
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    env["SCRIPT"] = invoke("completion", "bash").stdout
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, env=env)
    assert done.stdout.split("\n") == ["show", "order-17", "--status", ""]


def test_names_are_completed(shop, offered, doubtful):
    """Ids, workflows, statuses, steps and names of awaited messages are completed."""
    shop.sell("x", id="order-17")
    assert {"runs", "show", "completion"} <= set(offered("flowdsl "))
    assert offered("flowdsl show or") == ["order-17"]
    assert offered("flowdsl runs --status co") == ["completed"]
    assert set(offered("flowdsl runs --workflow ")) == {"shop.checkout", "shop.ship"}
    assert offered("flowdsl steps order-17 ch") == ["check", "charge"]
    assert offered("flowdsl fork order-17 --before re") == ["reserve"]


def test_no_database_is_made_and_nothing_is_said(folder, offered):
    """Nothing is offered, and no database is made, if there is none or the run is unknown."""
    assert offered("flowdsl show ") == []
    assert offered("flowdsl steps nothing ") == []
    assert list(folder.iterdir()) == []


def test_what_a_shell_would_not_take_literally_is_not_offered(url, folder, offered):
    """An id with spaces, quotes, substitutions or escapes is never offered."""
    (folder / ".flowdsl").mkdir()
    with open_storage(url) as storage:
        for number, name in enumerate(
            ["good-1", "a b", "$(id)", "`id`", "x\x1b[31m", "-rf", "a;b", "q'q", "日本"]
        ):
            storage.set_run(Run(name, "shop.order", str(number)))
    assert offered("flowdsl show ") == ["good-1"]


def test_a_damaged_database_is_silent(url, folder, offered):
    """A damaged database offers nothing and prints nothing."""
    (folder / ".flowdsl").mkdir()
    (folder / ".flowdsl" / "flow.db").write_bytes(b"no database" * 1000)
    assert offered("flowdsl show ") == []


def test_a_refused_record_is_silent(url, folder, offered, monkeypatch):
    """A refused record is left out silently, and the others are offered."""
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", "only we know")
    furnish(url)
    with closing(sqlite3.connect(folder / ".flowdsl" / "flow.db")) as database:
        database.execute("UPDATE runs SET workflow = 'shop.evil' WHERE id = 'order-1'")
        database.commit()
    assert offered("flowdsl show order-") == ["order-2"]


def test_the_storage_on_the_line_counts(shop, offered, folder, monkeypatch):
    """``--storage`` before or after the command decides whose runs are offered."""
    where = f"sqlite:///{folder}/.flowdsl/flow.db"
    shop.sell("x", id="order-17")
    monkeypatch.chdir("/")
    with Runtime("memory://"):
        assert offered(f"flowdsl --storage {where} show or") == ["order-17"]
        assert offered(f"flowdsl show --storage {where} or") == ["order-17"]

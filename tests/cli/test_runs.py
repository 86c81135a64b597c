"""``flowdsl runs``."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len

from flowdsl import Runtime, workflow


def test_lists_runs_newest_first(shop, invoke):
    """All columns of each run are shown, the newest run first, and a parent is older than its child."""
    run = shop.sell("apples")
    shop.fail("pears")
    lines = invoke("runs").stdout.splitlines()
    assert lines[0].split() == ["id", "workflow", "status", "created", "duration", "arguments"]
    assert "shop.checkout" in lines[1]
    assert "✗ failed" in lines[1]
    assert "order='pears'" in lines[1]
    assert lines[2].startswith("ship-apples")
    assert "✓ completed" in lines[2]
    assert lines[3].startswith(run.id)
    assert len(lines) == 4


def test_a_run_that_nobody_executes_is_interrupted(shop, invoke, answer):
    """A running run without a living owner is listed as interrupted, and is found by that status only."""
    run = shop.break_off("apples")
    assert "! interrupted" in invoke("runs").stdout
    (found,) = answer("runs", "--status", "interrupted")
    assert (found["id"], found["status"], found["stored_status"]) == (run.id, "interrupted", "running")
    assert answer("runs", "--status", "running") == []


def test_a_run_that_executes_is_running(url, folder, answer, invoke):
    """A run of a living process is listed as running, with its time so far."""
    ready, go = threading.Event(), threading.Event()

    @workflow(name="shop.wait")
    def wait():
        ready.set()
        go.wait()

    with Runtime(url):
        run = wait.start()
        ready.wait()
        (found,) = answer("runs", "--status", "running")
        assert "● running" in invoke("runs").stdout
        assert answer("runs", "--status", "interrupted") == []
        go.set()
        run.result()
    assert (found["status"], found["duration"], found["finished_at"]) == ("running", None, None)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--status", "failed"], {"b"}),
        (["--status", "failed", "--status", "interrupted"], {"b", "c"}),
        (["--workflow", "shop.checkout"], {"a", "b", "c"}),
        (["--workflow", "checkout"], {"a", "b", "c"}),
        (["--workflow", "checkou"], set()),
        (["--workflow", "ship"], {"ship-x"}),
        (["--tag", "env=prod"], {"a", "c"}),
        (["--tag", "env"], {"a", "c"}),
        (["--tag", "env=prod", "--tag", "region=us"], set()),
        (["--tag", "slow", "--tag", "night"], {"b"}),
        (["--tag", "env", "--status", "interrupted"], {"c"}),
        (["--since", "1 hour"], {"a", "b", "c", "ship-x"}),
        (["--until", "1 hour"], set()),
        (["--since", "2999-01-01"], set()),
        (["--until", "2999-01-01 12:00"], {"a", "b", "c", "ship-x"}),
    ],
)
def test_filters(shop, answer, options, expected):
    """Each filter leaves out what does not match, and several filters hold together."""
    shop.sell("x", id="a")
    shop.fail("y", id="b", tags=("slow", "night"))
    shop.break_off("z", id="c")
    assert {run["id"] for run in answer("runs", *options)} == expected


def test_since_and_until_meet(shop, answer):
    """A run created at exactly the given moment is included by --since and excluded by --until."""
    run = shop.sell("x", id="a")
    moment = datetime.fromtimestamp(run.created_at, UTC).isoformat()
    assert "a" in {run["id"] for run in answer("runs", "--since", moment)}
    assert "a" not in {run["id"] for run in answer("runs", "--until", moment)}


def test_limit_says_that_there_are_more(shop, invoke):
    """A limited list says that there are more, and --all lifts the limit."""
    for order in "abc":
        shop.sell(order, id=order)
    cut = invoke("runs", "--limit", "2")
    assert len(cut.stdout.splitlines()) == 3
    assert "newest 2" in cut.stderr
    whole = invoke("runs", "--all")
    assert len(whole.stdout.splitlines()) == 7
    assert not whole.stderr


def test_pages_through_many_runs(shop, answer, monkeypatch):
    """A filter that the storage cannot apply also finds runs after the first page."""
    monkeypatch.setattr("flowdsl.cli._find.PAGE", 2)
    for order in "abcde":
        shop.sell(order, id=order)
    found = answer("runs", "--workflow", "checkout")
    assert [run["id"] for run in found] == ["e", "d", "c", "b", "a"]


def test_json_says_what_a_run_is(shop, answer):
    """In JSON values are previews, times are in UTC, and what does not apply is null."""
    shop.sell("x", id="a")
    found = {run["id"]: run for run in answer("runs")}["a"]
    assert found["args"] == "order='x'"
    assert found["result"].startswith("{'reserved': ")
    assert found["error"] is None
    assert found["tags"] == {"env": "prod", "region": "eu"}
    created = datetime.fromisoformat(found["created_at"])
    assert datetime.now(UTC) - created < timedelta(minutes=5)
    assert 0 <= found["duration"] < 300


def test_empty_lists(shop, invoke, answer):
    """A list without matching runs is no error, and in JSON it is an empty list."""
    with Runtime(shop.url):
        pass
    empty = invoke("runs")
    assert (empty.exit_code, empty.stdout, empty.stderr) == (0, "", "no runs\n")
    shop.sell("x")
    assert invoke("runs", "--status", "failed").stderr == "no such runs\n"
    assert answer("runs", "--status", "failed") == []


def test_a_missing_database_is_not_made(folder, invoke):
    """Reading makes no database, and says that there is none."""
    result = invoke("runs", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: no database at {folder}/.flowdsl/flow.db: nothing has run")
    assert result.stderr.splitlines()[1] == "next: go where your program runs, or give --storage URL"
    assert list(folder.iterdir()) == []
    other = invoke("runs", "--storage", "sqlite:///other.db")
    assert other.stderr == f"error: no database at {folder}/other.db\n"


def test_a_database_further_up_is_named(shop, invoke, folder, monkeypatch):
    """In a subdirectory the error names the database of the directory above."""
    shop.sell("x")
    (folder / "deep").mkdir()
    monkeypatch.chdir(folder / "deep")
    stderr = invoke("runs").stderr
    assert f"sqlite:///{folder}/.flowdsl/flow.db" in stderr
    assert not (folder / "deep" / ".flowdsl").exists()


def test_the_storage_is_named_by_option_or_environment(shop, answer, monkeypatch, folder):
    """--storage works before and after the command, and wins over FLOWDSL_STORAGE."""
    shop.sell("x", id="a")
    where = f"sqlite:///{folder}/.flowdsl/flow.db"
    monkeypatch.chdir("/")
    monkeypatch.setenv("FLOWDSL_STORAGE", where)
    assert len(answer("runs")) == 2
    monkeypatch.setenv("FLOWDSL_STORAGE", "sqlite:///nowhere.db")
    assert len(answer("runs", "--storage", where)) == 2
    assert len(answer("--storage", where, "runs")) == 2


@pytest.mark.parametrize("width", [60, 80, 120, 160])
def test_fits_the_terminal(shop, terminal, width):
    """In a terminal no line is too wide, each row is one line, and there are colours."""
    shop.sell("a very long order that goes on and on, with 日本語 and 🍎 in it, and then some more of that")
    shop.fail("pears")
    seen = terminal("runs", width=width)
    assert seen.code == 0
    assert len(seen.lines) == 4
    assert max(map(cell_len, seen.lines)) <= width
    assert "\x1b[" in seen.raw
    assert "✓ completed" in seen.text
    assert "✗ failed" in seen.text


def test_a_shortened_id_is_accepted(shop, terminal, answer):
    """Other commands accept an id that a narrow terminal shows shortened."""
    run = shop.fail("pears")
    shown = terminal("runs", width=60).lines[1].split()[0]
    assert "…" in shown
    assert answer("show", shown)["id"] == run.id


def test_piped_output_is_whole_and_plain(shop, invoke):
    """Piped output is never shortened and has no escape sequences."""
    order = "long " * 30
    run = shop.sell(order)
    stdout = invoke("runs").stdout
    assert run.id in stdout
    assert order in stdout
    assert "\x1b" not in stdout
    assert "…" not in stdout


def test_hostile_text_is_harmless(url, folder, invoke, answer):
    """Escape sequences in an id, a tag or an error do not reach the terminal."""

    @workflow(name="shop.evil", tags=("\x1b[2J",))
    def evil():
        raise ValueError("\x1b]0;owned\x07\nsecond line")

    with Runtime(url), pytest.raises(ValueError):
        evil.options(id="\x1b[31mred [bold]x[/bold]")()
    for command in (["runs"], ["show", "\x1b[31m"], ["steps", "\x1b[31m"]):
        result = invoke(*command)
        assert result.exit_code == 0
        assert "\x1b" not in result.output
        assert "\x07" not in result.output
    assert "\\x1b[31mred [bold]x[/bold]" in invoke("runs").stdout
    assert answer("runs")[0]["id"] == "\x1b[31mred [bold]x[/bold]"

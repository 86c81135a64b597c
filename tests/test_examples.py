"""The examples, run as a user runs them: as scripts in an empty directory, with warnings as errors."""

import asyncio
import csv
import importlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import forked
import pytest

from flowdsl import Runtime
from flowdsl.testing import kill_after

EXAMPLES = Path(__file__).parent.parent / "examples"


def start(directory: Path, script: str, *args: str, **pipes: Any) -> forked.Popen:
    """Start an example that keeps its records in *directory*."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("FLOWDSL_")}
    command = [sys.executable, "-W", "error", str(EXAMPLES / script), *args]
    return forked.Popen(
        command, cwd=directory, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **pipes
    )


def run(directory: Path, script: str, *args: str) -> str:
    """Run an example to its end; what it printed."""
    process = start(directory, script, *args)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, printed
    return printed


def lives(directory: Path, script: str, *args: str, commits: int | list[int]) -> list[str]:
    """Run an example, kill it after its n-th commit, run it again, and so on; what each of them printed."""
    storage = {"FLOWDSL_STORAGE": f"sqlite:///{directory}/flow.db"}
    forking = types.SimpleNamespace(**{**vars(subprocess), "Popen": forked.Popen})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "flowdsl.testing.kill.subprocess", forking
        )  # a started process imports for half a second
        report = kill_after(EXAMPLES / script, *args, commits=commits, env=storage, cwd=directory)
    assert report.kills > 0
    return [life.stdout for life in report.lives]


def flowdsl(directory: Path, *args: str, check: bool = True) -> str:
    """Run a command of flowdsl on the records in *directory*; what it printed."""
    command = [sys.executable, "-m", "flowdsl.cli", *args]
    env = {name: value for name, value in os.environ.items() if not name.startswith("FLOWDSL_")}
    done = forked.run(command, cwd=directory, env=env, capture_output=True, text=True, check=check)
    stdout: str = done.stdout
    return stdout


def test_index_writes_the_table_and_the_plot(tmp_path: Path) -> None:
    """The table has a line for each file of the library, and the plot is an image."""
    printed = run(tmp_path, "index_stdlib.py", "--limit", "30")

    with (tmp_path / "out" / "modules.csv").open(newline="") as table:
        rows = {row["module"]: row for row in csv.DictReader(table)}
    assert len(rows) == 30
    assert int(rows["__future__"]["classes"]) == 1
    assert not any(row["error"] for row in rows.values())
    plot = ElementTree.parse(tmp_path / "out" / "packages.svg").getroot()
    assert plot.tag == "{http://www.w3.org/2000/svg}svg"
    assert "33 steps executed, 0 replayed." in printed


@pytest.mark.parametrize("kind", ["SIGKILL", "SIGINT"])
def test_index_continues_where_it_was_stopped(tmp_path: Path, kind: str) -> None:
    """After a kill or Ctrl-C the next call says what it replays, and executes only the rest."""
    process = start(tmp_path, "index_stdlib.py", "--limit", "130")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("100 of 133 steps"):
            process.send_signal(getattr(signal, kind))
            break
    process.communicate(timeout=60)
    assert process.returncode == (130 if kind == "SIGINT" else -signal.SIGKILL)

    printed = run(tmp_path, "index_stdlib.py", "--limit", "130")
    continuing = re.search(
        r"^continuing run \S+ of .*: (\d+) recorded steps are replayed$", printed, re.MULTILINE
    )
    assert continuing, printed
    replayed = int(continuing[1])
    assert 100 <= replayed < 133
    assert f"{133 - replayed} steps executed, {replayed} replayed." in printed


def test_index_runs_anew_once_it_has_completed(tmp_path: Path) -> None:
    """A run that has ended is not continued: the next call indexes again."""
    for _ in range(2):
        assert "8 steps executed, 0 replayed." in run(tmp_path, "index_stdlib.py", "--limit", "5")


def test_checkout_tells_the_whole_story(tmp_path: Path) -> None:
    """The checkout fails while the bank is down, continues when it is up, and then has its result."""
    printed = run(tmp_path, "checkout.py", "--order", "7")

    assert printed.count("the warehouse puts 1 teapot aside") == 1
    assert printed.count("another attempt in") == 2
    assert "=> the checkout failed: connection refused" in printed
    assert "[reserve: not executed, the record says 'reservation-7']" in printed
    assert printed.count("the bank takes 29.50 €") == 1
    assert printed.count("=> {'reservation': 'reservation-7', 'payment': 'payment-7'}") == 2


def test_checkout_continues_in_another_process(tmp_path: Path) -> None:
    """The next process does not reserve again what one process has reserved."""
    act = ("checkout.py", "--order", "7", "--bank")
    failed, mended, again = run(tmp_path, *act, "down"), run(tmp_path, *act, "up"), run(tmp_path, *act, "up")

    assert "the warehouse puts" in failed
    assert "the warehouse puts" not in mended
    assert "the bank takes" in mended
    assert "the bank takes" not in again
    assert again.endswith("=> {'reservation': 'reservation-7', 'payment': 'payment-7'}\n")


def test_an_approval_is_reminded_after_three_days_and_given_up_after_seven(tmp_path: Path) -> None:
    """Both approvals are asked and reminded once; one is answered after that, the other is given up."""
    told = run(tmp_path, "approval.py").splitlines()

    assert [line for line in told if "may we buy a desk?" in line] == [
        "  mail to bob: may we buy a desk?",
        "  mail to bob: still waiting: may we buy a desk?",
    ]
    assert (
        told.index("day 3")
        < told.index("  mail to bob: still waiting: may we buy a desk?")
        < told.index("day 4")
    )
    assert sum("may we buy a chair?" in line for line in told) == 2
    assert told[-2:] == ["chair: ordered, approved by ann", "desk: no answer in 7 days"]


def test_an_approval_goes_on_waiting_in_another_process(tmp_path: Path) -> None:
    """The process is killed while it waits, the decision comes meanwhile, and the next process takes it."""
    process = start(tmp_path, "approval.py", "chair")
    assert process.stdout is not None
    while "may we buy" not in process.stdout.readline():
        assert process.poll() is None
    while "wait_for" not in flowdsl(tmp_path, "steps", "approval-chair"):
        assert process.poll() is None
    process.kill()
    process.communicate(timeout=60)

    flowdsl(tmp_path, "signal", "approval-chair", "decision", "--payload", '{"yes": true, "by": "ann"}')
    told = run(tmp_path, "approval.py", "chair")
    assert "mail" not in told
    assert told.endswith("chair: ordered, approved by ann\n")


SAGA = ("order_saga.py", "--order", "7", "--pause", "0", "--courier")


def test_a_saga_takes_back_and_executes_again(tmp_path: Path) -> None:
    """Completed steps are undone, newest first, and after the cause is mended a retry does all of it
    again."""
    failed, mended = run(tmp_path, *SAGA, "drives"), run(tmp_path, *SAGA, "flies")

    order = [
        "aside",
        "the bank takes",
        "the bank gives",
        "back\n    =>",
        "7 failed: nobody drives to the moon",
    ]
    places = [failed.index(what) for what in order]
    assert places == sorted(places)
    assert [line.split() for line in failed.splitlines()[-5:]] == [
        ["ship", "step", "failed"],
        ["refund", "undo", "completed"],
        ["charge", "step", "undone"],
        ["release", "undo", "completed"],
        ["reserve", "step", "undone"],
    ]
    assert "=> on its way" in mended
    assert mended.count("aside") == mended.count("the bank takes") == 1


def test_a_saga_killed_anywhere_takes_everything_back_once(tmp_path: Path) -> None:
    """Killed after every second commit, while it works and while it undoes, each thing happens once."""
    told = "".join(lives(tmp_path, *SAGA, "drives", commits=[2] * 8))

    for happened in ("aside", "the bank takes", "the bank gives", "tent back", "7 failed"):
        assert told.count(happened) == 1, told


def test_duplicates_are_found_and_counted_once(tmp_path: Path) -> None:
    """Of three files, two of them equal and one empty, none is counted twice after a kill."""
    shelf = tmp_path / "shelf" / "deep"
    shelf.mkdir(parents=True)
    for name, text in {"a": "tea" * 50, "b": "coffee", "c": "tea" * 50, "d": ""}.items():
        (shelf / name).write_text(text)

    printed = lives(tmp_path, "find_duplicates.py", str(shelf.parent), commits=[4, 4])[-1]
    assert re.search(r"^continuing run .* steps are replayed$", printed, re.MULTILINE), printed
    assert f"4 files, 0.0 MB below {shelf.parent}\n" in printed
    assert "1 are empty; 1 contents are there more than once\n" in printed
    assert printed.endswith("150 B  2 ×  deep/a\n")


def test_an_agent_pays_for_no_turn_twice(tmp_path: Path) -> None:
    """An agent that is killed several times has asked its model four times and called each tool once."""
    told = "".join(lives(tmp_path, "agent.py", "json", "--pause", "0", "--yes", commits=[2, 3, 6, 8]))

    answer = "json/encoder.py is the longest"
    assert told.count("model  calls") + told.count(f"model  {answer}") == 4, told
    assert told.count("tool  list_modules") == told.count("tool  save_note") == 1, told
    assert told.endswith("tokens)\n")
    assert re.search(rf"^{answer}.*\n=> {answer}", told, re.MULTILINE), told  # streamed, and returned
    assert "tool  count_lines('json', 'invented.py')" in told  # it fails, and the model is told so
    assert (tmp_path / "note.txt").read_text().startswith(answer)


def test_an_agent_asks_and_keeps_to_its_budget(tmp_path: Path) -> None:
    """A refused action is not done, and with too few tokens there is no answer."""
    process = start(tmp_path, "agent.py", "--pause", "0", stdin=subprocess.PIPE)
    told, _ = process.communicate("n\n", timeout=60)
    assert "tool  save_note" not in told
    assert "tokens)" in told
    assert not (tmp_path / "note.txt").exists()
    assert "=> no answer within the budget" in run(tmp_path, "agent.py", "--pause", "0", "--budget", "200")


def test_a_cart_that_is_killed_answers_each_question_once(tmp_path: Path) -> None:
    """A cart that dies again and again while it is asked pays the bank once, for its items."""
    answers = []

    def shopper() -> None:
        with Runtime(f"sqlite:///{tmp_path}/flow.db") as runtime:
            while runtime.run("cart-Ada") is None:
                threading.Event().wait(0.01)
            for n, (name, count) in enumerate([("add", 2), ("add", 1), ("remove", 1), ("checkout", 0)]):
                asked = {"item": "tea", "count": count}
                answers.append(runtime.ask("cart-Ada", name, asked, key=f"{n}", timeout="2 min"))

    asking = threading.Thread(target=shopper)
    asking.start()
    told = "".join(lives(tmp_path, "cart.py", "serve", "Ada", commits=[2, 3, 2, 4]))
    asking.join()
    assert answers == [{"tea": 2}, {"tea": 3}, {"tea": 2}, "receipt for 9.00 €"]
    assert told.count("the bank takes 9.00 € from Ada") == 1, told


def test_a_cart_tells_its_story(tmp_path: Path) -> None:
    """The printed story of the cart shows which messages were refused and which were answered."""
    told = run(tmp_path, "cart.py")
    assert "checkout -> refused: the cart is empty" in told
    assert "add spoon 1 -> refused: there is no 'spoon'" in told
    assert told.endswith("the cart: receipt for 28.50 €; it last held {'tea': 1, 'pot': 1}\n")


def test_a_crawler_that_is_killed_finds_the_same(tmp_path: Path) -> None:
    """A crawler that is killed at random moments reads the rest, and counts the same words."""
    site = tmp_path / "site"
    site.mkdir()
    for n in range(12):
        links = "".join(f'<a href="page{m}.html">{m}</a>' for m in (2 * n + 1, 2 * n + 2) if m < 12)
        (site / ("index.html" if n == 0 else f"page{n}.html")).write_text(f"page {n} {'word ' * n}{links}")
    whole = run(tmp_path, "crawler.py", str(site)).splitlines()[-1]
    assert whole.endswith("on 12 pages")

    chance = random.Random(7)
    commits = [chance.randrange(1, 6) for _ in range(4)]
    assert lives(tmp_path, "crawler.py", str(site), commits=commits)[-1].splitlines()[-1] == whole


def test_a_subscription_bills_for_years(tmp_path: Path) -> None:
    """There is one invoice a month, one generation each, and the journal stays short."""
    told = run(tmp_path, "subscription.py")
    assert told.count("Ada pays 5.00 €") + told.count("Ada pays 20.00 €") == 36, told
    assert "Ada paid for 36 months" in told
    assert re.search(r"36 invoices, 37 generations, \d records in the journal\n$", told), told


def test_a_subscription_that_was_killed_can_be_cancelled(tmp_path: Path) -> None:
    """A message that comes while nobody executes the run is answered by the next process."""
    process = start(tmp_path, "subscription.py", "--real", "Ada")
    while "receive" not in flowdsl(tmp_path, "steps", "subscription-Ada", check=False):
        assert process.poll() is None
    process.kill()
    process.communicate(timeout=60)

    flowdsl(tmp_path, "signal", "subscription-Ada", "cancel")
    assert run(tmp_path, "subscription.py", "--real", "Ada").endswith("Ada paid for 0 months\n")


def test_a_page_that_lost_its_connection_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Server-sent events carry the number of their item, and ``Last-Event-ID`` asks for later ones."""
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("starlette")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("PAUSE", "0")
    agent_web = importlib.import_module("agent_web")

    async def talk() -> tuple[list[str], list[str], int]:
        async with Runtime("memory://") as runtime:
            transport = httpx.ASGITransport(agent_web.make_app(runtime))
            async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
                begun = (await client.post("/talks", json="why?")).json()
                words = f"/talks/{begun['id']}/words"
                whole = (await client.get(words)).text.split("\n\n")
                rest = (await client.get(words, headers={"Last-Event-ID": "3"})).text.split("\n\n")
                return whole, rest, (await client.get("/talks/none/words")).status_code

    whole, rest, missing = asyncio.run(talk())
    assert whole[0] == 'id: 1\ndata: "You"'
    assert whole[-2:] == ["event: end\ndata: ", ""]
    assert rest == whole[3:]
    assert missing == 404


def test_an_import_is_repaired_by_a_fork(tmp_path: Path) -> None:
    """A bad row stops the import, and the fork keeps the rates, reads the mended file and loads all of it."""
    told = run(tmp_path, "etl.py")

    assert "=> failed: line 188, order 1187: invalid literal for int() with base 10: '1O'" in told
    assert told.count("bought the rate of") == 5
    assert told.count("read 320 rows") == 2
    assert told.count("loaded 320 rows") == 1
    assert re.search(r"=> 320 orders, by run import_orders-\w+-2\n", told)
    assert sum(int(found) for found in re.findall(r" (\d+) orders  ", told)) == 320
    assert run(tmp_path, "etl.py").count("loaded 320 rows") == 1  # and again, from the beginning


def test_an_import_is_repaired_from_the_command_line(tmp_path: Path) -> None:
    """A killed import continues, and the command line makes the repairing fork."""
    told = "".join(lives(tmp_path, "etl.py", "--act", "import", commits=[3, 3]))
    assert told.count("bought the rate of") == 5
    run(tmp_path, "etl.py", "--act", "mend")

    on_file = ("--storage", f"sqlite:///{tmp_path}/flow.db")
    app = ("--before", "extract", "--app", str(EXAMPLES / "etl.py"))
    printed = flowdsl(tmp_path, "fork", "import_orders", *app, *on_file)
    assert "bought" not in printed
    assert "loaded 320 rows" in printed

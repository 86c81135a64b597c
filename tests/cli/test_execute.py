"""``flowdsl resume`` and ``flowdsl retry``, with scripts in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from flowdsl.cli.common import Failure
from flowdsl.cli.modules import load_app

SCRIPT = """
    import os, sys
    from dataclasses import dataclass
    from pathlib import Path
    from flowdsl import Retry, step, workflow

    @dataclass
    class Order:
        number: int

    class CardDeclined(Exception):
        pass

    def note(line):
        with open("effects.txt", "a") as file:
            file.write(line + "\\n")

    @step
    def reserve(order):
        note(f"reserve {order.number}")
        return order

    @step(retry=Retry(attempts=1))
    def charge(order):
        note("charge")
        print("the body prints")
        os.system("echo and so does its child")
        if Path("die").exists():
            Path("die").unlink()
            os.kill(os.getpid(), 9)
        if not Path("card").exists():
            raise CardDeclined("no money\\nat all")
        return "paid"

    @workflow(id="order-{order.number}")
    def checkout(order):
        reserved = reserve(order)
        assert type(reserved) is Order
        return [reserved, charge(reserved)]

    if __name__ == "__main__":
        note("main")
        checkout(Order(int(sys.argv[1])))
"""


@pytest.fixture
def script(folder):
    """A script, and what calling it leaves in the file of effects."""
    path = folder / "jobs" / "shop-v2.py"
    path.parent.mkdir()
    path.write_text(textwrap.dedent(SCRIPT))

    def run(number):
        done = subprocess.run([sys.executable, str(path), str(number)], capture_output=True, text=True)
        return done.returncode

    return run


@pytest.fixture
def effects(folder):
    """What the bodies of the script did, in order."""
    return lambda: (folder / "effects.txt").read_text().split("\n")[:-1]


def test_retry_a_script(script, effects, folder, invoke, spawn):
    """A script's run is retried from its file: its main part does not execute, its classes are found."""
    assert script(7) == 1
    (folder / "card").touch()
    process = spawn("retry", "order-7", "--app", "jobs/shop-v2.py")
    stdout, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, "")
    assert effects() == ["main", "reserve 7", "charge", "charge"]
    lines = stdout.splitlines()
    assert lines[:2] == ["the body prints", "and so does its child"]
    assert lines[2].startswith("✓ completed  order-7  1 executed, 1 recorded before, ")
    assert lines[3] == "  result  [Order(number=7), 'paid']"


def test_resume_a_killed_script(script, effects, folder, spawn):
    """A run whose process was killed goes on; what its code prints does not disturb the JSON."""
    (folder / "die").touch()
    assert script(8) == -signal.SIGKILL
    (folder / "card").touch()
    process = spawn("resume", "order-8", "--app", "jobs/shop-v2.py", "--json")
    stdout, stderr = process.communicate()
    document = json.loads(stdout)
    assert (document["id"], document["status"]) == ("order-8", "completed")
    assert (document["executed"], document["replayed"]) == (1, 1)
    assert "the body prints" in stderr
    assert "and so does its child" in stderr
    assert effects() == ["main", "reserve 8", "charge", "charge"]


def test_a_run_that_fails_again(script, effects, spawn, folder):
    """A run that fails is one line on standard error and exit code 1."""
    script(9)
    process = spawn("retry", "order-9", "--app", "jobs/shop-v2.py")
    _, stderr = process.communicate()
    assert process.returncode == 1
    assert stderr == "error: run order-9 failed: CardDeclined: no money at all\n"
    assert effects() == ["main", "reserve 9", "charge", "charge"]
    process = spawn("retry", "order-9", "--app", "jobs/shop-v2.py", "--json")
    document = json.loads(process.communicate()[0])
    assert (process.returncode, document["status"]) == (1, "failed")


def test_what_cannot_be_continued(shop, invoke, folder, imports):
    """A run that is not there, has completed, or is not failed is refused with a reason."""
    (folder / "empty_module.py").touch()
    run = shop.sell("x", id="done")
    app = ["--app", "empty_module"]
    assert invoke("resume", run.id, *app).stderr == "error: run done has ended: it is completed\n"
    assert invoke("retry", run.id, *app).stderr == "error: run done has ended: it is completed\n"
    result = invoke("resume", "nothing", *app)
    assert (result.exit_code, result.stderr) == (1, "error: no run 'nothing'; `flowdsl runs` lists them\n")


def test_the_module_has_to_define_the_workflow(script, folder, invoke, imports):
    """A module that does not define the run's workflow is an error that names the workflow."""
    script(5)
    (folder / "empty_module.py").touch()
    result = invoke("retry", "order-5", "--app", "empty_module")
    assert result.exit_code == 1
    assert "shop-v2.checkout" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_module_is_asked_for(shop, invoke):
    """Without --app it says which module it probably is, and executes nothing."""
    run = shop.fail("x")
    for command in ("resume", "retry"):
        result = invoke(command, run.id)
        assert result.exit_code == 2
        assert "probably --app shop;" in result.stderr


@pytest.mark.parametrize(
    ("app", "source", "said"),
    [
        ("nowhere", None, "error: no module 'nowhere' here"),
        ("nowhere.py", None, "error: no file nowhere.py\n"),
        ("broken.py", "import nosuchthing", "importing broken.py failed: ModuleNotFoundError"),
        ("broken", "import nosuchthing", "importing broken failed: ModuleNotFoundError"),
        ("broken.py", "def", "importing broken.py failed: SyntaxError"),
        ("broken.py", "x = 1\n1 / 0", "broken.py:2)"),
        ("broken.py", "raise SystemExit(0)", "importing broken.py failed: SystemExit"),
        ("json.py", "", "there is another of that name"),
    ],
)
def test_modules_that_cannot_be_imported(app, source, said, shop, folder, invoke, imports):
    """A module that is not there or does not load is one line that says why."""
    if source is not None:
        (folder / f"{app.removesuffix('.py')}.py").write_text(source)
    run = shop.fail("x")
    result = invoke("retry", run.id, "--app", app)
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert "broken" not in sys.modules


def test_a_file_in_a_package(folder, imports):
    """A file inside a package is a module of it, or a script, as the run's workflow says."""
    package = folder / "pkg" / "sub"
    package.mkdir(parents=True)
    for place in (folder / "pkg", package):
        (place / "__init__.py").touch()
    (package / "jobs.py").write_text("name = __name__")
    assert load_app("pkg/sub/jobs.py", "pkg.sub.jobs.checkout").name == "pkg.sub.jobs"
    assert load_app("pkg/sub/jobs.py").name == "pkg.sub.jobs"
    assert load_app("pkg/sub/jobs.py", "jobs.checkout").name == "jobs"
    assert load_app("pkg/sub/jobs.py", "jobs.checkout") is sys.modules["jobs"]
    with pytest.raises(Failure):
        load_app("pkg/sub/nothing.py")


CONFIGURED = """
    import flowdsl
    from flowdsl.codecs import JsonCodec

    flowdsl.configure("sqlite:///elsewhere.db", codec=JsonCodec())

    @flowdsl.step(retry=flowdsl.Retry(attempts=1))
    def charge(order):
        if not card:
            raise ValueError("no card")
        return "paid"

    @flowdsl.workflow(id="order-{order}")
    def checkout(order):
        return charge(order)

    card = __name__ != "__main__"
    if __name__ == "__main__":
        checkout(3)
"""


def test_the_runtime_that_the_module_configures(folder, spawn):
    """A run is found and continued where the module keeps it, with the codec of the module."""
    (folder / "conf.py").write_text(textwrap.dedent(CONFIGURED))
    assert subprocess.run([sys.executable, "conf.py"], capture_output=True).returncode == 1
    process = spawn("retry", "order-3", "--app", "conf", "--json")
    document = json.loads(process.communicate()[0])
    assert (process.returncode, document["status"], document["result"]) == (0, "completed", "'paid'")
    assert not (folder / ".flowdsl").exists()


WAITS = """
    import asyncio, sys, threading
    from flowdsl import step, workflow

    @step
    async def forever():
        print("waiting", flush=True)
        await asyncio.Event().wait()

    begun = threading.Event()

    @step
    def stubborn():
        begun.set()
        print("waiting", flush=True)
        threading.Event().wait()

    @workflow(name="waits.checkout", id="{kind}")
    async def checkout(kind):
        if kind != "new":
            await forever()

    @workflow(name="waits.block", id="{kind}")
    def block(kind):
        stubborn()
"""


@pytest.fixture
def waits(folder, url):
    """A module whose runs never end, and interrupted runs of it."""
    (folder / "waits.py").write_text(textwrap.dedent(WAITS))
    program = "import os, waits\nwaits.{0}.start('{0}')\nos._exit(9)"
    for name in ("checkout", "block"):
        done = subprocess.run([sys.executable, "-c", program.format(name)], cwd=folder)
        assert done.returncode == 9


def test_ctrl_c_leaves_the_run_resumable(waits, spawn, answer):
    """Ctrl-C while an async step waits ends with 130 at once; the run is interrupted."""
    process = spawn("resume", "checkout", "--app", "waits")
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert "Traceback" not in process.stderr.read()
    (found,) = [run for run in answer("runs", "--status", "interrupted") if run["id"] == "checkout"]
    assert found["owner"] is None


def test_a_second_ctrl_c_leaves_a_step_behind(waits, spawn, answer):
    """A sync step that does not end is waited for, until Ctrl-C comes again."""
    process = spawn("resume", "block", "--app", "waits")
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("interrupted; it can be resumed.")
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert "block" in {run["id"] for run in answer("runs", "--status", "interrupted")}


def test_waits_for_a_run_that_executes_elsewhere(waits, spawn, answer):
    """Resuming a run that a living process executes does not execute it twice."""
    first = spawn("resume", "checkout", "--app", "waits")
    assert first.stdout.readline() == "waiting\n"
    second = spawn("resume", "checkout", "--app", "waits")
    assert (
        second.stderr.readline()
        == f"it is executed by process {first.pid} on {os.uname().nodename}: waiting for it\n"
    )
    second.send_signal(signal.SIGINT)
    assert second.wait() == 130
    assert second.stdout.read() == ""
    assert first.poll() is None


def test_ctrl_c_before_it_waits_is_no_other(waits, folder, spawn, answer):
    """Ctrl-C that strikes while the run is being continued lets it go in the same way."""
    early = """
        import os, signal, flowdsl.runtime
        from waits import *

        continued = flowdsl.runtime.continue_run

        def interrupted(*args):
            run_id = continued(*args)
            begun.wait()
            os.kill(os.getpid(), signal.SIGINT)
            return run_id

        flowdsl.runtime.continue_run = interrupted
    """
    (folder / "early.py").write_text(textwrap.dedent(early))
    process = spawn("resume", "block", "--app", "early")
    assert process.stdout.readline() == "waiting\n"
    assert process.stderr.readline().startswith("interrupted; it can be resumed.")
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert "block" in {run["id"] for run in answer("runs", "--status", "interrupted")}

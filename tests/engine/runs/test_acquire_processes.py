"""Runs and other processes: killed, stopped, interrupted, joined, forked."""

import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
from support import script, spawn

from flowdsl import RunStatus, Runtime, workflow
from flowdsl.storage import MemoryStorage, SQLiteStorage
from flowdsl.storage.base import ClaimRun, Opened, PutStep

PROGRAM = """
    import asyncio, os, sys, time
    from flowdsl import Runtime, RunStatus, step, workflow

    FOLDER = os.path.dirname(os.path.abspath(__file__))

    def effect(*what):
        with open(os.path.join(FOLDER, "effects"), "a") as file:
            file.write(" ".join(map(str, what)) + "\\n")

    def say(*what):
        print(*what, flush=True)

    @step
    def work(n):
        effect("work", n)
        return n * 10

    @step
    def hang(n):
        effect("hang", n)
        if n == int(os.environ.get("HANG", "-1")):
            say("hanging")
            sys.stdin.readline()
        return n

    @workflow
    def job(count):
        found = []
        for n in range(count):
            found.append(work(n))
            hang(n)
        return found

    @workflow(id="the-job")
    def known(count):
        return job.__wrapped__(count)

    if __name__ == "__main__":
        lease = float(os.environ.get("LEASE", "30"))
        with Runtime("sqlite:///" + os.path.join(FOLDER, "flow.db"), lease=lease):
            say("result", {"job": job, "known": known}[sys.argv[1]](int(sys.argv[2])))
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A script with a workflow that can be made to hang."""
    return script(tmp_path / "jobs.py", PROGRAM)


def effects_of(program: Path) -> list[str]:
    """What its bodies did, in all processes."""
    return (program.parent / "effects").read_text().splitlines()


def finish(process: "subprocess.Popen[str]", say: str = "") -> str:
    """Let a process go on, and return its last line."""
    out, err = process.communicate(say, timeout=60)
    assert process.returncode == 0, err
    return out.strip().splitlines()[-1]


def hang(program: Path, name: str, at: int, **env: str) -> "subprocess.Popen[str]":
    """A process that hangs in step *at*."""
    process = spawn(program, name, "3", HANG=str(at), **env)
    assert process.stdout is not None
    assert process.stdout.readline() == "hanging\n"
    return process


def kill(process: "subprocess.Popen[str]") -> None:
    """SIGKILL, and nothing is left of it."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("name", ["job", "known"])
def test_after_sigkill_the_run_continues_at_once(program: Path, name):
    """After SIGKILL the run continues at once, recorded steps are kept, and the step in flight executes
    again."""
    kill(hang(program, name, 1, LEASE="3600"))
    begun = time.monotonic()
    assert finish(spawn(program, name, "3")) == "result [0, 10, 20]"
    assert time.monotonic() - begun < 600
    assert effects_of(program) == ["work 0", "hang 0", "work 1", "hang 1", "hang 1", "work 2", "hang 2"]
    with Runtime(f"sqlite:///{program.parent}/flow.db") as runtime:
        (run,) = runtime.runs()
        assert run.status is RunStatus.COMPLETED
        assert run.workflow == f"jobs.{name}"


def test_killed_again_and_again(program: Path):
    """If each process dies one step later, each recorded step was executed once."""
    for at in range(3):
        kill(hang(program, "job", at))
    assert finish(spawn(program, "job", "3")) == "result [0, 10, 20]"
    done = effects_of(program)
    assert [done.count(f"work {n}") for n in range(3)] == [1, 1, 1]
    assert [done.count(f"hang {n}") for n in range(3)] == [2, 2, 2]


def test_a_second_process_on_a_live_id_joins(program: Path):
    """A second process that calls a live run joins it."""
    first = hang(program, "known", 1)
    second = spawn(program, "known", "3")
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(1.5)
    assert finish(first, "\n") == "result [0, 10, 20]"
    assert finish(second) == "result [0, 10, 20]"
    done = effects_of(program)
    assert len(done) == len(set(done)) == 6


def test_a_second_process_without_an_id_starts_its_own_number(program: Path):
    """A second process without an id starts the next number at once."""
    first = hang(program, "job", 1)
    assert finish(spawn(program, "job", "3")) == "result [0, 10, 20]"
    assert finish(first, "\n") == "result [0, 10, 20]"
    with Runtime(f"sqlite:///{program.parent}/flow.db") as runtime:
        assert sorted(r.number for r in runtime.runs()) == [1, 2]
    assert effects_of(program).count("work 0") == 2


def test_a_joiner_takes_over_when_the_owner_is_killed(program: Path):
    """A waiting process sees the owner die, and finishes the run."""
    first = hang(program, "known", 1, LEASE="3600")
    second = spawn(program, "known", "3")
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(1.0)
    kill(first)
    assert finish(second) == "result [0, 10, 20]"
    assert effects_of(program).count("work 1") == 1


def test_a_stopped_process_loses_its_run_with_its_lease(program: Path):
    """A stopped process loses its run with its lease, and its later writes are refused."""
    first = hang(program, "known", 1, LEASE="0.5")
    first.send_signal(signal.SIGSTOP)
    assert finish(spawn(program, "known", "3")) == "result [0, 10, 20]"
    first.send_signal(signal.SIGCONT)
    _, errors = first.communicate("\n", timeout=60)
    assert first.returncode != 0
    assert "LeaseLost" in errors
    assert effects_of(program) == ["work 0", "hang 0", "work 1", "hang 1", "hang 1", "work 2", "hang 2"]


def test_ctrl_c_in_a_process_releases_the_run(program: Path):
    """After Ctrl-C the run has no owner, and the exit code is Python's."""
    process = hang(program, "known", 1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    with SQLiteStorage(program.parent / "flow.db") as storage:
        run = storage.get_run("the-job")
        assert (run.status, run.owner) == (RunStatus.RUNNING, None)
    assert finish(spawn(program, "known", "3")) == "result [0, 10, 20]"
    assert effects_of(program).count("work 1") == 1


def test_sigkill_under_load_never_repeats_an_acknowledged_step(tmp_path: Path):
    """Under load and SIGKILL at random moments no result that the workflow saw is computed again."""
    path = script(
        tmp_path / "load.py",
        """
        import os, sys
        from flowdsl import Runtime, step, workflow

        FOLDER = os.path.dirname(os.path.abspath(__file__))
        log = os.open(os.path.join(FOLDER, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        @step
        def f(n):
            os.write(log, b"did %d\\n" % n)
            return n

        @workflow(id="load")
        def w():
            for n in range(300):
                f(n)
                os.write(log, b"saw %d\\n" % n)
                if n == 5:
                    print("going", flush=True)
            return "done"

        with Runtime("sqlite:///" + os.path.join(FOLDER, "flow.db") + "?synchronous=normal"):
            print(w(), flush=True)
        """,
    )
    for _ in range(4):
        process = spawn(path)
        assert process.stdout is not None
        if process.stdout.readline() == "done\n":
            process.communicate()
            break
        kill(process)
    else:
        assert finish(spawn(path)) == "done"
    seen: set[str] = set()
    for line in (tmp_path / "log").read_text().splitlines():
        what, number = line.split()
        if what == "saw":
            seen.add(number)
        else:
            assert number not in seen


def take_over(storage, run_id: str) -> None:
    """Another process claims the run."""
    record = storage.get_run(run_id)
    (outcome,) = storage.commit([ClaimRun(run_id, record.epoch, "elsewhere", 30.0, force=True)])
    assert isinstance(outcome, Opened)


FORK = """
    import os, sys
    from flowdsl import Runtime, step, workflow

    FOLDER = os.path.dirname(os.path.abspath(__file__))

    @step
    def f(x):
        with open(os.path.join(FOLDER, "effects"), "a") as file:
            file.write(f"{x}\\n")
        return x

    @workflow(id="forked-{name}")
    def inner(name):
        return f(f"inner {name}")

    @workflow(id="outer")
    def outer():
        f("before")
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                f("plain call in the child")          # a forked child holds no run
                code = 0 if inner("child") == "inner child" else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        f("after")
        return os.waitstatus_to_exitcode(status)

    with Runtime("sqlite:///" + os.path.join(FOLDER, "flow.db")) as runtime:
        assert outer() == 0
        steps = [s.args for s in runtime.run("outer").steps()]
        assert steps == ["x='before'", "x='after'"], steps
        assert runtime.run("forked-child").status == "completed"
        assert runtime.run("forked-child").parent is None
        print("fine")
"""


def test_a_forked_child_holds_no_run(tmp_path: Path):
    """In a forked child steps are plain calls, and the parent's run goes on."""
    process = spawn(script(tmp_path / "forking.py", FORK))
    assert finish(process) == "fine"
    assert (tmp_path / "effects").read_text().splitlines() == [
        "before", "plain call in the child", "inner child", "after",
    ]  # fmt: skip


def test_multiprocessing_workers_share_the_storage(tmp_path: Path):
    """Forked and spawned workers each execute runs of their own on one file."""
    path = script(
        tmp_path / "workers.py",
        """
        import multiprocessing, os, sys
        from flowdsl import Runtime, step, workflow

        URL = "sqlite:///" + os.path.join(os.path.dirname(os.path.abspath(__file__)), "flow.db")

        @step
        def f(x):
            return x * x

        @workflow(id="square-{x}")
        def square(x):
            return f(x)

        def in_worker(x):
            with Runtime(URL):
                return square(x)

        if __name__ == "__main__":
            with Runtime(URL) as runtime:
                square(0)
                for method in ("fork", "spawn"):
                    with multiprocessing.get_context(method).Pool(2) as pool:
                        assert pool.map(in_worker, range(6)) == [x * x for x in range(6)]
                assert len(runtime.runs()) == 6
                print("fine")
        """,
    )
    assert finish(spawn(path)) == "fine"


def test_the_exit_of_an_interpreter_drains_what_was_sent(tmp_path: Path):
    """A script that exits without closing its runtime still executes its background calls."""
    path = script(
        tmp_path / "ends.py",
        """
        import os, time
        from flowdsl import configure, step, workflow

        FOLDER = os.path.dirname(os.path.abspath(__file__))
        configure("sqlite:///" + os.path.join(FOLDER, "flow.db"))

        @step(mode="send")
        def notify(x):
            time.sleep(0.2)
            with open(os.path.join(FOLDER, "effects"), "a") as file:
                file.write(f"{x}\\n")

        @workflow
        def w():
            for x in range(3):
                notify(x)

        w()
        print("ended")
        """,
    )
    assert finish(spawn(path)) == "ended"
    assert sorted((tmp_path / "effects").read_text().splitlines()) == ["0", "1", "2"]


def test_the_exit_of_an_interpreter_lets_started_runs_go(tmp_path: Path):
    """At exit, started runs are interrupted, resumable, and do not keep the process alive."""
    path = script(
        tmp_path / "started.py",
        """
        import os, sys, threading, time
        from flowdsl import configure, step, workflow

        FOLDER = os.path.dirname(os.path.abspath(__file__))
        configure("sqlite:///" + os.path.join(FOLDER, "flow.db"))
        second = threading.Event()

        @step
        def f(x):
            if x == 1:
                second.set()
            if len(sys.argv) == 1:
                time.sleep(0.1)
            return x

        @workflow(id="started")
        def w():
            return [f(x) for x in range(20)]

        if len(sys.argv) > 1:
            print(w())
        else:
            w.start()
            second.wait()
            print("ended")
        """,
    )
    assert finish(spawn(path)) == "ended"
    with SQLiteStorage(tmp_path / "flow.db") as storage:
        record = storage.get_run("started")
        assert (record.status, record.owner) == (RunStatus.RUNNING, None)
        assert 1 <= len(storage.list_steps("started")) < 20
    assert finish(spawn(path, "again")) == str(list(range(20)))


def test_a_stale_process_is_refused_by_the_file_itself(program: Path):
    """A process that hung while its run was taken over is refused, and says so."""
    process = hang(program, "known", 1)
    with SQLiteStorage(program.parent / "flow.db") as storage:
        take_over(storage, "the-job")
        process.communicate("\n", timeout=60)
        assert process.returncode != 0
        record = storage.get_run("the-job")
        assert (record.owner, record.epoch) == ("elsewhere", 2)
        assert [s.args for s in storage.list_steps("the-job")] == ["n=0", "n=0", "n=1"]
        (outcome,) = storage.commit([PutStep(storage.list_steps("the-job")[0], epoch=1)])
        assert type(outcome).__name__ == "Fenced"


def test_memory_storages_are_of_one_process(tmp_path: Path):
    """A memory storage in a forked child is a copy, whose writes do not come back."""
    storage = MemoryStorage()
    with Runtime(storage) as runtime:

        @workflow(id="m-{x}")
        def w(x):
            return x

        w(1)
        assert storage.url is None
        assert runtime.run("m-1").result() == 1
    assert sqlite3.sqlite_version


FORK_WITH_WORKERS = """
import os
from concurrent.futures import Executor, Future

from flowdsl import Runtime, step, workflow

FOLDER = os.path.dirname(os.path.abspath(__file__))

class Here(Executor):
    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.set_result(fn(*args, **kwargs))
        return future

@step(executor=Here())
def f(x):
    return x

@workflow
def w(x):
    return f.submit(x).result()

with Runtime("sqlite:///" + os.path.join(FOLDER, "flow.db")):
    assert w("parent") == "parent"
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if w("child") == "child" else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    print("fine" if status == 0 else status)
"""


def test_a_forked_child_has_its_own_threads_that_wait_for_workers(tmp_path: Path):
    """A forked child does not use its parent's threads."""
    assert finish(spawn(script(tmp_path / "forking.py", FORK_WITH_WORKERS))) == "fine"

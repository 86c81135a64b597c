"""Steps that are called outside the reach of a run: one warning per process, and a hook each time."""

import os
import threading
import warnings

import pytest

from flowdsl import Hooks, Runtime, step, workflow
from flowdsl.engine import outside


@step
def charge():
    return "charged"


class Told(Hooks):
    def __init__(self):
        self.paths = []

    def called_outside(self, path):
        self.paths.append(path)


@pytest.fixture
def silent(monkeypatch):
    """A process that has said nothing yet."""
    monkeypatch.setattr(outside, "_process", outside._Process())


def in_a_thread(fn):
    """Call *fn* in a thread that no run knows of."""
    thread = threading.Thread(target=fn)
    thread.start()
    thread.join()


def test_a_step_in_a_bare_thread_of_a_body_is_said_once(silent):
    """A step in a bare thread of a body warns once per process, names the remedy, and calls the hook each
    time."""
    told = Told()

    @workflow
    def shop():
        in_a_thread(charge)
        in_a_thread(charge)

    with Runtime("memory://", hooks=told), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        shop()
    assert [str(one.message).count(charge.path) for one in caught] == [1]
    assert "charge.submit(…)" in str(caught[0].message)
    assert told.paths == [charge.path] * 2


def test_plain_calls_while_nothing_executes_are_nobodys_business(silent):
    """Plain calls while nothing executes give no warning, in threads or not."""
    told = Told()
    with Runtime("memory://", hooks=told):
        charge()
        in_a_thread(charge)
    assert told.paths == []


def test_the_main_thread_may_call_steps_beside_a_run(silent):
    """The main thread may call steps while a run executes in the background, without a warning."""
    go = threading.Event()

    @workflow
    def patient():
        go.wait(60)

    told = Told()
    with Runtime("memory://", hooks=told):
        run = patient.start()
        assert charge() == "charged"
        go.set()
        run.result(60)
    assert told.paths == []


def test_steps_of_the_run_in_its_own_threads_are_no_plain_calls(silent):
    """Steps in threads of ``submit`` are steps of the run."""
    told = Told()

    @workflow
    def shop():
        return charge.submit().result()

    with Runtime("memory://", hooks=told):
        assert shop() == "charged"
    assert told.paths == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_of_a_body_says_so(silent, tmp_path):
    """A forked child of a body makes plain calls, and says so."""
    said = tmp_path / "said"

    @workflow
    def shop():
        child = os.fork()
        if not child:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                charge()
            said.write_text("\n".join(str(one.message) for one in caught))
            os._exit(0)
        os.waitpid(child, 0)

    with Runtime("memory://"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of os.fork() beside threads
        shop()
    assert charge.path in said.read_text()

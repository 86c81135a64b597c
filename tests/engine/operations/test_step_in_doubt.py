"""Steps with an unknown outcome: ``in_doubt`` and idempotency keys."""

import pytest
from support import Crash, Effects, Flavour, Mortal, Recorder, script, spawn

from flowdsl import Retry, RunStatus, Runtime, StepStatus, current_step
from flowdsl.errors import StepOutcomeUnknown
from flowdsl.testing import VirtualClock


def dying(flavour: Flavour, effects: Effects, **options):
    """A workflow whose step dies with its process the first time it executes."""

    @flavour.step
    def before():
        return effects("before")

    @flavour.step(**options)
    def pay():
        if effects("pay") == 1:
            storage_of_the_process.dead = True
            raise Crash
        return "paid"

    @flavour.workflow(id="doubt", on_error=lambda run, error: effects("on_error"))
    def w():
        yield before()
        try:
            return (yield pay())
        except Exception:
            effects("refund")

    return w, pay


storage_of_the_process: Mortal


def die(flavour: Flavour, storage, w) -> None:
    """Call *w* in a process that dies."""
    global storage_of_the_process
    storage_of_the_process = Mortal(storage)
    with Runtime(storage_of_the_process, clock=VirtualClock()), pytest.raises(Crash):
        flavour.call(w)


def test_by_default_it_executes_again(storage, flavour: Flavour, effects: Effects):
    """By default a step that was executing at a crash executes again."""
    w, _ = dying(flavour, effects)
    die(flavour, storage, w)
    with Runtime(storage, clock=VirtualClock()):
        assert flavour.call(w) == "paid"
    assert effects == ["before", "pay", "pay"]


def test_raise_stops_the_run_and_a_person_decides(storage, flavour: Flavour, effects: Effects):
    """``in_doubt="raise"`` raises ``StepOutcomeUnknown`` at each call, and nothing executes or fails."""
    w, pay = dying(flavour, effects, in_doubt="raise", retry=Retry(attempts=5))
    die(flavour, storage, w)
    hooks = Recorder()
    with Runtime(storage, clock=VirtualClock(), hooks=hooks) as runtime:
        for _ in range(2):
            with pytest.raises(StepOutcomeUnknown, match=r"resolve.*doubt|doubt.*resolve") as caught:
                flavour.call(w)
            assert (caught.value.run, caught.value.step) == ("doubt", pay.key())
        run = runtime.run("doubt")
        assert (run.status, run.interrupted) == (RunStatus.RUNNING, True)
        assert [s.status for s in run.steps()] == [StepStatus.COMPLETED, StepStatus.PENDING]
    assert effects == ["before", "pay"]
    assert not {"step_error", "run_fail", "step_retry"} & set(hooks.names())


def test_map_with_a_call_in_doubt_gives_no_shorter_list(storage, flavour: Flavour, effects: Effects):
    """If one call of ``map`` is in doubt, the run stops. The step that called ``map`` does not get the results of
    the others alone."""

    @flavour.step(in_doubt="raise")
    def pay(n):
        if effects("pay", n) == 1 and n == 1:
            storage_of_the_process.dead = True
            raise Crash
        return n

    @flavour.step
    def pay_all():
        return (yield pay.map(range(3)))

    @flavour.workflow(id="doubt")
    def w():
        return (yield pay_all())

    die(flavour, storage, w)
    with Runtime(storage, clock=VirtualClock()) as rt:
        with pytest.raises(StepOutcomeUnknown):
            flavour.call(w)
        steps = rt.run("doubt").steps()
        assert not [one for one in steps if one.path.endswith("pay_all") and one.status == "completed"]
        for one in steps:
            if one.status == "pending" and one.path.endswith(
                ".pay"
            ):  # the others may have been under way too
                rt.resolve("doubt", one.key, result=int(one.args[-1]))
        assert flavour.call(w) == [0, 1, 2]


def test_a_failed_attempt_is_not_in_doubt(storage, flavour: Flavour, effects: Effects):
    """A crash in the wait between two attempts leaves no doubt, because the last attempt is known to have
    failed."""

    class Interrupting(VirtualClock):
        def wait(self, waker, seconds, **more):
            raise KeyboardInterrupt

        async def await_(self, waker, seconds):
            raise KeyboardInterrupt

    @flavour.step(in_doubt="raise", retry=Retry(attempts=3))
    def pay():
        if effects("pay") == 1:
            raise OSError
        return "paid"

    @flavour.workflow
    def w():
        return (yield pay())

    with Runtime(storage, clock=Interrupting()), pytest.raises(KeyboardInterrupt):
        flavour.call(w)
    with Runtime(storage, clock=VirtualClock()) as runtime:
        assert flavour.call(w) == "paid"
        (run,) = runtime.runs()
        assert [s.attempts for s in run.steps()] == [2]


def test_an_interrupt_in_the_body_is_in_doubt_too(storage, flavour: Flavour, effects: Effects):
    """After an interrupt in the body the step is in doubt."""

    @flavour.step(in_doubt="raise")
    def pay():
        if effects("pay") == 1:
            raise KeyboardInterrupt
        return "paid"

    @flavour.workflow
    def w():
        return (yield pay())

    with Runtime(storage, clock=VirtualClock()):
        with pytest.raises(KeyboardInterrupt):
            flavour.call(w)
        with pytest.raises(StepOutcomeUnknown):
            flavour.call(w)
    assert effects == ["pay"]


def test_a_recorded_outcome_is_not_in_doubt(runtime: Runtime, flavour: Flavour, effects: Effects):
    """A recorded outcome leaves no doubt, whether completed or failed."""
    stop = [True]

    @flavour.step(in_doubt="raise", retry=Retry(attempts=1))
    def pay(x):
        effects("pay", x)
        if x < 0:
            raise LookupError
        return x

    @flavour.workflow
    def w():
        good = yield pay(1)
        try:
            yield pay(-1)
        except LookupError:
            pass
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return good

    with pytest.raises(KeyboardInterrupt):
        flavour.call(w)
    assert flavour.call(w) == 1
    assert effects == [("pay", 1), ("pay", -1)]


def test_a_failed_run_retries_such_a_step(runtime: Runtime, flavour: Flavour, effects: Effects):
    """A retry of a failed run executes such a step again."""

    @flavour.step(in_doubt="raise", retry=Retry(attempts=1))
    def pay():
        if effects("pay") == 1:
            raise LookupError
        return "paid"

    @flavour.workflow
    def w():
        return (yield pay())

    with pytest.raises(LookupError):
        flavour.call(w)
    assert flavour.call(w) == "paid"


def test_the_idempotency_key_is_stable_across_attempts_and_resumes(
    storage, flavour: Flavour, effects: Effects
):
    """The idempotency key is equal for all attempts and resumes, and differs for other runs and calls."""
    keys = []

    @flavour.step(retry=Retry(attempts=4))
    def pay(x):
        keys.append((x, current_step().idempotency_key, current_step().attempt))
        n = effects("pay", x)
        if n == 1:
            raise OSError
        if n == 2:
            raise KeyboardInterrupt
        return x

    @flavour.workflow
    def w(run):
        yield pay(1)
        yield pay(2)

    with Runtime(storage, clock=VirtualClock()):
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                flavour.call(w, 1)
        flavour.call(w, 1)
        first = [key for x, key, _ in keys if x == 1]
        second = [key for x, key, _ in keys if x == 2]
        assert len(set(first)) == len(set(second)) == 1
        assert first[0] != second[0]
        effects.log.clear()
        effects("pay", 1), effects("pay", 1), effects("pay", 2), effects("pay", 2)
        flavour.call(w, 2)
        assert keys[-1][1] not in (first[0], second[0])


@pytest.mark.parametrize("word", ["result", "error", "rerun"])
def test_sigkill_in_the_body_and_a_word_from_another_process(tmp_path, word):
    """After a SIGKILL in the body the run stops at each call until another process resolves the step."""
    code = script(
        tmp_path / "pays.py",
        """
        import sys
        from flowdsl import Runtime, step, workflow
        from flowdsl.errors import StepOutcomeUnknown
        @step(in_doubt="raise")
        def pay(amount):
            print("paying", flush=True)
            sys.stdin.readline()
            return f"paid {amount}"
        @workflow(id="w")
        def w():
            try: return pay(10)
            except LookupError as error: return repr(error)
        with Runtime("sqlite:///flow.db"):
            try: print(w())
            except StepOutcomeUnknown as error: print("unknown", error.step)
        """,
    )
    process = spawn(code)
    assert process.stdout.readline() == "paying\n"
    process.kill()
    process.communicate(timeout=60)
    with Runtime(f"sqlite:///{tmp_path}/flow.db") as rt:
        for _ in range(2):
            out, _ = spawn(code).communicate(timeout=60)
            (step,) = rt.run("w").steps()
            assert out == f"unknown {step.key}\n"
        said = {
            "result": {"result": "word"},
            "error": {"error": LookupError("word")},
            "rerun": {"rerun": True},
        }
        rt.resolve("w", "pay", **said[word])
        out, _ = spawn(code).communicate("\n", timeout=60)
        assert out == {
            "result": "word\n", "error": "LookupError('word')\n", "rerun": "paying\npaid 10\n"
        }[word]  # fmt: skip
        assert rt.run("w").status is RunStatus.COMPLETED

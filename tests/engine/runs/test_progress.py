"""Progress of a run, seen from another process."""

import signal

from support import Relay, script, spawn
from verbsupport import until

from flowdsl import Runtime, step, workflow
from flowdsl.core.status import StepStatus
from flowdsl.storage.base import PutStep


def test_a_long_step_of_another_process_shows_up_with_its_start(tmp_path):
    """Another process sees a long step with its start, and the count of earlier steps."""
    code = script(
        tmp_path / "long.py",
        """
        import sys, time
        from flowdsl import Runtime, step, workflow
        @step
        def quick(n): return n
        @step
        def fails(): raise KeyError
        @step
        def long():
            print(time.time(), flush=True)
            sys.stdin.readline()
        @workflow(id="w")
        def w():
            for n in range(3): quick(n)
            try: fails()
            except KeyError: pass
            long()
        with Runtime("sqlite:///flow.db"): w()
        """,
    )
    process = spawn(code)
    began = float(process.stdout.readline())
    with Runtime(f"sqlite:///{tmp_path}/flow.db") as rt:
        found = until(lambda: (seen := rt.query("w", "progress"))["running"] and seen)
        (entry,) = found["running"]
        assert (entry["path"], entry["attempt"]) == ("long.long", 1)
        assert began - 5 < entry["started_at"].timestamp() <= began
        assert (found["done"], found["failed"], found["known"]) == (3, 1, 5)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        found = rt.run("w").progress()
        assert (found["done"], found["failed"], found["known"], found["running"]) == (3, 1, 5, [])


def test_quick_steps_cost_no_extra_write(storage, clock):
    """Quick steps write one record each, and none that says it is executing."""
    puts = []

    class Counting(Relay):
        def commit(self, operations):
            puts.extend(op.step.status for op in operations if isinstance(op, PutStep))
            return self.inner.commit(operations)

    @step
    def quick(n):
        return n

    @workflow
    def w():
        return [quick(n) for n in range(50)] + quick.map(range(50, 100))

    with Runtime(Counting(storage), clock=clock) as rt:
        w()
        assert rt.runs()[0].progress()["done"] == 100
    assert puts == [StepStatus.COMPLETED] * 100

"""An approval: a person is asked, reminded after three days, and given up on after seven.

Run it: ``python examples/approval.py``. Time is virtual, so a week takes a moment.
"""

from datetime import datetime

from flowdsl import Runtime, now, step, wait_for, workflow
from flowdsl.errors import WaitTimeout
from flowdsl.testing import VirtualClock


@step
def mail(to: str, text: str) -> None:
    """Stands for a mail."""
    print(f"to {to}: {text}")


@step
def book(request: str, by: str) -> str:
    """What the approval is for."""
    return f"{request}, approved by {by}"


@workflow(id="approval-{request}")
def approval(request: str, boss: str) -> str:
    """Wait for a ``decision`` signal."""
    begun: datetime = now()
    mail(boss, f"please approve: {request}")
    try:
        decision = wait_for("decision", timeout="3 days")
    except WaitTimeout:
        mail(boss, f"still waiting for you: {request}")
        try:
            decision = wait_for("decision", timeout="4 days")
        except WaitTimeout:
            return f"{request}: no answer in {(now() - begun).days} days"
    return book(request, decision["by"]) if decision["yes"] else f"{request}: refused"


def main() -> None:
    """One that is answered after the reminder, one that is not."""
    clock = VirtualClock(autoskip=False)
    with Runtime("memory://", clock=clock) as rt:
        answered = approval.start("a chair", "ann")
        ignored = approval.start("a desk", "bob")
        clock.advance("5 days")
        rt.signal(answered.id, "decision", {"yes": True, "by": "ann"})
        clock.advance("2 days")
        print(answered.result())
        print(ignored.result())


if __name__ == "__main__":
    main()

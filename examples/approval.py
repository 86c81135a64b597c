"""An approval: a person is asked, reminded after three days, and given up on after seven.

    python examples/approval.py

tells two stories on a virtual clock: a week passes in a moment. For real, with the records in a file:

    python examples/approval.py chair

waits as long as necessary. Kill it and start it again: it goes on waiting, and asks nobody twice. Answer from
another terminal, whether it is running or not:

    flowdsl signal approval-chair decision --payload '{"yes": true, "by": "ann"}'
"""

import argparse
import sys

from flowdsl import Runtime, now, step, wait_for, workflow
from flowdsl.errors import WaitTimeout
from flowdsl.testing import VirtualClock


@step
def mail(to: str, text: str) -> None:
    """Stands for a mail."""
    tell(f"  mail to {to}: {text}")


@step
def order(item: str, approved_by: str) -> str:
    """The action that needs the approval."""
    return f"{item}: ordered, approved by {approved_by}"


@workflow(id="approval-{item}")
def approval(item: str, boss: str) -> str:
    """Wait for a ``decision`` signal: three days, a reminder, then four more."""
    asked = now()
    mail(boss, f"may we buy a {item}?")
    try:
        decision = wait_for("decision", timeout="3 days")
    except WaitTimeout:
        mail(boss, f"still waiting: may we buy a {item}?")
        try:
            decision = wait_for("decision", timeout="4 days")
        except WaitTimeout:
            return f"{item}: no answer in {(now() - asked).days} days"
    return order(item, decision["by"]) if decision["yes"] else f"{item}: refused by {decision['by']}"


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def on_a_virtual_clock() -> None:
    """Play two approvals: one is answered after the reminder, the other is not."""
    clock = VirtualClock(autoskip=False)
    with Runtime("memory://", clock=clock) as runtime:
        chair = approval.start("chair", "ann")
        clock.advance(0)  # until it waits
        desk = approval.start("desk", "bob")
        clock.advance(0)
        for day in range(1, 8):
            tell(f"day {day}")
            clock.advance("1 day")
            if day == 5:
                tell("  ann says yes")
                runtime.signal(chair.id, "decision", {"yes": True, "by": "ann"})
        tell(chair.result())
        tell(desk.result())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("item", nargs="?", help="what to ask for, in real time (default: tell the story)")
    parser.add_argument("--boss", default="ann")
    asked = parser.parse_args()
    if asked.item is None:
        on_a_virtual_clock()
        return
    tell(f"waiting for a decision on run approval-{asked.item}; Ctrl-C and start again as you like")
    try:
        tell(approval(asked.item, asked.boss))
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The run is kept, and so is a decision that comes meanwhile.")


if __name__ == "__main__":
    main()

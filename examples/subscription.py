"""A subscription that bills every month for years, as one run with a short journal.

    python examples/subscription.py                  three years in a second, on a virtual clock
    python examples/subscription.py --real Ada       on the real clock; kill it, and run it again

Each month is a generation: the run sleeps until the day, bills, and begins anew under its id with
``continue_as_new``. The message ``cancel`` ends it at once. The message ``plan`` changes the price from the
next month on.
"""

import argparse
import sys
from datetime import UTC, datetime

from flowdsl import Retry, Runtime, continue_as_new, now, publish, receive, sleep, step, workflow
from flowdsl.errors import WaitTimeout
from flowdsl.testing import VirtualClock

PLANS = {"small": 500, "large": 2000}


@step(retry=Retry(attempts=None, initial="1 hour", maximum="1 day"))  # a bank that is down is asked again
def bill(customer: str, month: str, cents: int) -> str:
    """Charge one month. With the step's idempotency key the bank charges once, even if the step is
    retried."""
    tell(f"{month}: {customer} pays {cents / 100:.2f} €")
    return f"{month}: {cents} cents"


def next_month(moment: datetime) -> datetime:
    """The first day of the month after *moment*."""
    year, month = divmod(moment.year * 12 + moment.month, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)


@workflow(id="subscription-{customer}", tags=("subscription",))
def subscription(customer: str, plan: str = "small", months: int = 0) -> str:
    """Bill *customer* on the first of each month until the subscription is cancelled."""
    due = next_month(now())
    while True:
        left = (due - now()).total_seconds()
        try:
            message = receive("plan", "cancel", timeout=max(left, 0.0))
        except WaitTimeout:
            break
        if message.name == "cancel":
            message.reply(f"cancelled after {months} months")
            return f"{customer} paid for {months} months"
        if message.payload in PLANS:
            plan = message.payload
            message.reply(plan)
        else:
            message.refuse(LookupError(f"there is no plan {message.payload!r}"))
    publish("invoices", bill(customer, f"{due:%Y-%m}", PLANS[plan]))
    return continue_as_new(customer, plan, months + 1)


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def three_years() -> None:
    """Somebody subscribes in January, takes the large plan a year later, and leaves after three years."""
    clock = VirtualClock(datetime(2027, 1, 15, tzinfo=UTC).timestamp())
    with Runtime("memory://", clock=clock):
        run = subscription.start("Ada")

        @workflow
        def life() -> None:
            sleep("365 days")
            tell(f"  plan: {run.ask('plan', 'large')}")
            sleep("730 days")
            tell(f"  {run.ask('cancel')}")

        life()
        tell(run.result())
        tell(
            f"{len(list(run.stream('invoices')))} invoices, {run.generation} generations, "
            + f"{len(run.steps())} records in the journal"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--real", metavar="CUSTOMER", help="on the real clock, kept in .flowdsl/flow.db")
    asked = parser.parse_args()
    if asked.real is None:
        three_years()
        return
    with Runtime():
        tell(subscription(asked.real))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. Run it again to continue.")

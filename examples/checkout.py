"""A shop's checkout: the three modes of a step, retries, a step that fails, and continuing after the fix.

    python examples/checkout.py

tells the whole story: the bank is down, then it is up again, then the customer clicks once more. The records
survive the process; to see that, play the acts one by one:

    python examples/checkout.py --order 7 --bank down
    python examples/checkout.py --order 7 --bank up
    python examples/checkout.py --order 7 --bank up
"""

import argparse
import sys
import time
from typing import Any

from flowdsl import Hooks, Retry, Runtime, step, workflow

# Services of the shop -----------------------------------------------------------------------------------


class BankDown(Exception):
    """The bank does not answer; another attempt may help."""


class Bank:
    """Stands for a payment service."""

    is_up = True


# The checkout -----------------------------------------------------------------------------------------------


@step
def reserve(order: int, item: str) -> str:
    """Mode "do", the default: recorded, retried; the caller waits."""
    tell(f"the warehouse puts 1 {item} aside")
    return f"reservation-{order}"


@step(retry=Retry(attempts=3, initial=0.2, on=BankDown))
def charge(order: int, cents: int) -> str:
    """A durable step with a retry policy of its own."""
    if not Bank.is_up:
        raise BankDown("connection refused")
    tell(f"the bank takes {cents / 100:.2f} €")
    return f"payment-{order}"


@step(mode="try")
def recommend(item: str) -> str:
    """Mode "try": one attempt, no record. For what may fail, or may give another result next time."""
    if not Bank.is_up:
        raise ConnectionError("the recommendation service is down as well")
    return f"people who bought {item} also bought a mug"


@step(mode="send")
def count_event(event: str) -> None:
    """Mode "send": in the background, without a record. It happens again when a run continues."""
    tell(f"(in the background: counted one {event})")


@workflow(id="order-{order}")
def checkout(order: int, item: str, cents: int) -> dict[str, str]:
    """There is one run for each order, because the id contains the order."""
    count_event("checkout")
    try:
        tell(recommend(item))
    except ConnectionError as error:
        tell(f"no recommendation today ({error}); the checkout goes on")
    reservation = reserve(order, item)
    payment = charge(order, cents)
    return {"reservation": reservation, "payment": payment}


# Telling the story ------------------------------------------------------------------------------------------


def tell(line: str) -> None:
    sys.stdout.write(f"    {line}\n")
    sys.stdout.flush()


class Story(Hooks):
    """Prints, in brackets, what flowdsl does with the durable steps."""

    def on_step_replay(self, step: Any, result: Any) -> None:
        tell(f"[{name(step)}: not executed, the record says {result!r}]")

    def on_step_complete(self, step: Any, result: Any) -> None:
        if step.mode == "do":
            tell(f"[{name(step)}: recorded {result!r}]")

    def on_step_error(self, step: Any, error: BaseException, attempt: int) -> None:
        if step.mode == "do":
            tell(f"[{name(step)}: attempt {attempt} failed ({error})]")

    def on_step_retry(self, step: Any, error: BaseException, attempt: int, delay: float) -> None:
        tell(f"[{name(step)}: another attempt in {delay:.1f} s]")


def name(step: Any) -> str:
    """The function's name: the last part of the step's path."""
    return str(step.path).rpartition(".")[2]


def play(order: int, bank: str, storage: str | None) -> None:
    """One call of the checkout, as a customer's click would make it."""
    Bank.is_up = bank == "up"
    with Runtime(storage, hooks=Story()):
        try:
            print(f"    => {checkout(order, 'teapot', 2950)}")
        except BankDown as error:
            print(f"    => the checkout failed: {error}")


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--order", type=int, help="number of the order (default: a new one)")
    parser.add_argument("--bank", choices=("down", "up"), help="play one act only")
    parser.add_argument("--storage", help="storage URL (default: $FLOWDSL_STORAGE, else .flowdsl/flow.db)")
    return parser.parse_args()


def main() -> int:
    asked = options()
    order = int(time.time()) if asked.order is None else asked.order
    if asked.bank is not None:
        print(f"Order {order}; the bank is {asked.bank}.")
        play(order, asked.bank, asked.storage)
        return 0
    print(f"1. Order {order}. The bank is down: three attempts, then the checkout fails.")
    play(order, "down", asked.storage)
    print("2. The bank is up again. The same call continues: nothing is reserved twice.")
    play(order, "up", asked.storage)
    print("3. The customer clicks once more. The order has its result; nothing is executed.")
    play(order, "up", asked.storage)
    return 0


if __name__ == "__main__":
    sys.exit(main())

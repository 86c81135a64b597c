"""A shopping cart as an entity: one long-lived run that answers questions.

    python examples/cart.py                          the whole story in one process
    python examples/cart.py serve Ada                execute Ada's cart, in one terminal …
    python examples/cart.py ask Ada add tea 3        … and ask it from another one
    python examples/cart.py ask Ada checkout

Kill ``serve`` at any moment and start it again: no item is lost, and each question has one answer. After
every 100 changes the cart begins anew, so its journal stays short.
"""

import argparse
import sys
from typing import Any

from flowdsl import Runtime, continue_as_new, publish, receive, step, workflow
from flowdsl.errors import FlowError

PRICES = {"tea": 450, "cup": 900, "pot": 2400}
CHANGES = 100  # in one generation

# The cart ---------------------------------------------------------------------------------------------------


@step
def charge(customer: str, cents: int) -> str:
    """Take the money. A real bank would get the idempotency key of the step."""
    tell(f"  the bank takes {cents / 100:.2f} € from {customer}")
    return f"receipt for {cents / 100:.2f} €"


@workflow(id="cart-{customer}")
def cart(customer: str, items: dict[str, int] | None = None) -> str:
    """Answer ``add``, ``remove`` and ``checkout`` until the cart is paid."""
    held = dict(items or {})
    for _ in range(CHANGES):
        message = receive("add", "remove", "checkout")
        item = (message.payload or {}).get("item")
        count = (message.payload or {}).get("count", 1)
        if message.name == "checkout":
            if not held:
                message.refuse(ValueError("the cart is empty"))
                continue
            receipt = charge(customer, sum(PRICES[name] * n for name, n in held.items()))
            message.reply(receipt)
            return receipt
        if item not in PRICES:
            message.refuse(LookupError(f"there is no {item!r}; there is {', '.join(PRICES)}"))
        elif message.name == "remove" and held.get(item, 0) < count:
            message.refuse(ValueError(f"the cart holds {held.get(item, 0)} of {item!r}"))
        else:
            held[item] = held.get(item, 0) + (count if message.name == "add" else -count)
            held = {name: n for name, n in held.items() if n}
            publish("contents", held)
            message.reply(held)
    return continue_as_new(customer, held)


# The program ------------------------------------------------------------------------------------------------


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def ask(runtime: Runtime, customer: str, name: str, item: str | None = None, count: int = 1) -> None:
    """Ask the cart, and print its answer."""
    payload: dict[str, Any] = {} if item is None else {"item": item, "count": count}
    try:
        answer = runtime.ask(f"cart-{customer}", name, payload, timeout="1 min")
    except (ValueError, LookupError, FlowError) as error:
        answer = f"refused: {error}"
    tell(f"{name} {item or ''} {count if item else ''}".rstrip() + f" -> {answer}")


def story(runtime: Runtime) -> None:
    run = cart.start("Ada")
    ask(runtime, "Ada", "checkout")
    ask(runtime, "Ada", "add", "tea", 3)
    ask(runtime, "Ada", "add", "spoon")
    ask(runtime, "Ada", "add", "pot")
    ask(runtime, "Ada", "remove", "tea", 2)
    ask(runtime, "Ada", "checkout")
    tell(f"the cart: {run.result()}; it last held {run.latest('contents')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve").add_argument("customer")
    asking = commands.add_parser("ask")
    asking.add_argument("customer")
    asking.add_argument("name", choices=["add", "remove", "checkout"])
    asking.add_argument("item", nargs="?")
    asking.add_argument("count", nargs="?", type=int, default=1)
    asked = parser.parse_args()
    with Runtime("memory://" if asked.command is None else None) as runtime:
        if asked.command == "serve":
            tell(cart(asked.customer))
        elif asked.command == "ask":
            ask(runtime, asked.customer, asked.name, asked.item, asked.count)
        else:
            story(runtime)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. Run it again to continue.")

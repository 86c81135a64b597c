"""An order as a saga: when a step fails for good, the completed steps are undone, newest first.

    python examples/order_saga.py

plays two acts. The courier refuses, so the payment is refunded and the goods are released. Then the courier
has learned to fly, and ``retry`` executes everything again. Kill it at any moment, even while it undoes, and
run it again: it goes on where it was.
"""

import argparse
import sys
import time
from typing import Any

from flowdsl import Retry, Runtime, current_step, step, workflow

# What the shop depends on -----------------------------------------------------------------------------------


class CourierRefuses(Exception):
    """Waiting does not help: somebody has to change something."""


class World:
    """Stands for the services around the shop, and for how long they take."""

    courier_flies = False
    pause = 0.5


def happens(what: str) -> None:
    time.sleep(World.pause)
    tell(f"    {what}")


# The saga ---------------------------------------------------------------------------------------------------


@step
def release(reservation: dict[str, Any]) -> None:
    """Undoes ``reserve``. It is called with the result of ``reserve``."""
    happens(f"the warehouse puts {reservation['count']} × {reservation['item']} back")


@step(undo=release)
def reserve(item: str, count: int) -> dict[str, Any]:
    happens(f"the warehouse puts {count} × {item} aside")
    return {"item": item, "count": count}


@step(retry=Retry(attempts=5, initial=1))
def refund(payment: dict[str, Any]) -> None:
    """Undoes ``charge``. An undo is a step: it is retried, and a kill does not lose it."""
    happens(f"the bank gives {payment['cents'] / 100:.2f} € back")


@step(undo=refund)
def charge(cents: int) -> dict[str, Any]:
    running = current_step()
    assert running is not None
    key = running.idempotency_key  # the same in every attempt: the bank books it once
    happens(f"the bank takes {cents / 100:.2f} € (idempotency key …{key[-8:]})")
    return {"cents": cents, "key": key}


@step(retry=Retry(attempts=3, initial=0.2, never=CourierRefuses))
def ship(item: str, address: str) -> str:
    if address == "the moon" and not World.courier_flies:
        raise CourierRefuses(f"nobody drives to {address}")
    happens(f"the courier takes {item} to {address}")
    return "on its way"


@workflow(id="saga-{order}")
def place_order(order: str, item: str, count: int, cents: int, address: str) -> str:
    """There is no ``try`` and no clean-up code, because the steps name their undo."""
    reserve(item, count)
    charge(cents)
    return ship(item, address)


# Telling the story ------------------------------------------------------------------------------------------


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def play(order: str) -> None:
    """Make one call, and show what is recorded after it. An order that was undone executes again only by
    ``retry``, because a second delivery of the same order must not charge again."""
    with Runtime() as runtime:
        before = runtime.run(f"saga-{order}")
        try:
            if before is not None and before.status == "failed" and World.courier_flies:
                tell(f"    => {runtime.retry(before.id).result()}")
            else:
                tell(f"    => {place_order(order, 'tent', 2, 99_000, 'the moon')}")
        except CourierRefuses as error:
            tell(f"    => {order} failed: {error}")
        run = runtime.run(f"saga-{order}")
        assert run is not None
        for recorded in run.steps():
            tell(f"       {recorded.path.rpartition('.')[2]:<8} {recorded.kind:<5} {recorded.status}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--order", default=f"{time.time():.0f}", help="name of the order (default: a new one)"
    )
    parser.add_argument("--courier", choices=("drives", "flies"), help="play one act only")
    parser.add_argument("--pause", type=float, default=World.pause, help="seconds that each service takes")
    asked = parser.parse_args()
    World.pause = asked.pause
    for number, courier in enumerate((asked.courier,) if asked.courier else ("drives", "flies"), 1):
        World.courier_flies = courier == "flies"
        tell(f"{number}. Order {asked.order}. The courier {courier}.")
        play(asked.order)


if __name__ == "__main__":
    main()

"""``python -m benchmarks.scaling [URL…]``: what one database can do, and what many workers need.

It measures each storage that is named (steps a second by commits of 1, 10 and 100; by 1, 4 and 8 writers;
claims in batches of 20), then simulates workers that share databases. ``docs/scaling.md`` explains the
figures.
"""

import argparse
import heapq
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count

from attrs import define, frozen

from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus
from flowdsl.storage import Storage, open_storage
from flowdsl.storage.base import OpenRun, PutStep
from flowdsl.storage.operations import ClaimNext

__all__ = ["Database", "Outcome", "main", "measured", "simulated"]

# Measuring --------------------------------------------------------------------------------------------------

_PAYLOAD = b"x" * 200
_numbers = count()


def _rate(work: Callable[[], int], seconds: float, threads: int = 1) -> float:
    """How much *work* this many threads do in a second."""
    done, end = [0] * threads, time.monotonic() + seconds

    def repeat(place: int) -> None:
        done[place] += work()  # once at least, however busy the machine is
        while time.monotonic() < end:
            done[place] += work()

    begun = time.monotonic()
    workers = [threading.Thread(target=repeat, args=(place,)) for place in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(done) / (time.monotonic() - begun)


def measured(storage: Storage, seconds: float = 2.0, pending: int = 2_000) -> Iterator[tuple[str, float]]:
    """How much *storage* does in a second. Each figure is measured for *seconds*."""
    run_id = f"scaling-{next(_numbers)}"
    storage.commit([OpenRun(Run(run_id, "w", "k", owner="me"), 3600.0)])

    def appended(size: int) -> int:
        steps = [Step(run_id, f"s{next(_numbers)}", "p", payload=_PAYLOAD) for _ in range(size)]
        storage.commit([PutStep(step) for step in steps])
        return size

    for size in (1, 10, 100):
        yield f"steps, {size} in a commit", _rate(lambda size=size: appended(size), seconds)  # type: ignore[misc]
    for threads in (4, 8):
        yield f"steps, 1 in a commit, {threads} writers", _rate(lambda: appended(1), seconds, threads)
    for start in range(0, pending, 200):
        fields = {"queue": "q", "status": RunStatus.PENDING, "created_at": 1.0}
        rows = [Run(f"{run_id}-{n}", "w", f"k{n}", **fields) for n in range(start, start + 200)]  # type: ignore[arg-type]
        storage.commit([OpenRun(row, 0.0) for row in rows])

    def claimed() -> int:
        (found,) = storage.commit([ClaimNext("me", 3600.0, (("w", ""),), limit=20)])
        return len(found.runs)  # type: ignore[union-attr]

    begun = time.monotonic()
    taken = claimed()
    while time.monotonic() < begun + seconds and (more := claimed()):
        taken += more
    yield f"claims, 20 in a commit, of {pending:,} pending", taken / (time.monotonic() - begun)


# Simulating -------------------------------------------------------------------------------------------------


@frozen
class Database:
    """One database as a server with *lanes*. Each commit uses one lane: for *alone* seconds if it has one
    step, and less for each of several. The defaults are PostgreSQL's in docs/scaling.md."""

    lanes: int = 8
    alone: float = 8 / 4_299
    shares: tuple[tuple[int, float], ...] = ((1, 1.0), (10, 172 / 418), (100, 64 / 418), (1_000, 50 / 418))

    def seconds(self, steps: int) -> float:
        """How long a commit of *steps* uses a lane."""
        below, above = self.shares[0], self.shares[-1]
        for point in self.shares:
            below = point if point[0] <= steps else below
        for point in reversed(self.shares):
            above = point if point[0] >= steps else above
        span = max(above[0] - below[0], 1)
        each = below[1] + (above[1] - below[1]) * min((steps - below[0]) / span, 1.0)
        return self.alone * steps * each


@frozen
class Outcome:
    """The result of a simulation: *steps* a second, and how long a step waited for its commit, in seconds."""

    steps: float
    median: float
    p99: float


@define
class _Server:
    database: Database
    free: int
    queue: "deque[tuple[int, list[float]]]"


def simulated(
    workers: int,
    body: float,
    *,
    per_process: int = 1,
    databases: int = 1,
    seconds: float = 10.0,
    seed: int = 0,
) -> Outcome:
    """Simulate *workers* that execute one step after the other, each *body* seconds long on average.

    *per_process* of them share a process. A process makes one commit at a time on each database, and steps
    that end meanwhile go into the next one. Runs are spread over *databases*.
    """
    chance, events, order = random.Random(seed), [], count()
    servers = [_Server(Database(), Database().lanes, deque()) for _ in range(databases)]
    waiting: dict[tuple[int, int], list[float]] = {}
    busy: set[tuple[int, int]] = set()
    waits: list[float] = []

    def later(when: float, what: str, process: int, shard: int, batch: list[float]) -> None:
        heapq.heappush(events, (when, next(order), what, process, shard, batch))

    def serve(now: float, shard: int) -> None:
        server = servers[shard]
        while server.free and server.queue:
            process, batch = server.queue.popleft()
            server.free -= 1
            later(now + server.database.seconds(len(batch)), "committed", process, shard, batch)

    def send(now: float, process: int, shard: int) -> None:
        batch = waiting.pop((process, shard), [])
        if batch:
            busy.add((process, shard))
            servers[shard].queue.append((process, batch))
            serve(now, shard)

    for worker in range(workers):
        later(chance.expovariate(1 / body), "done", worker // per_process, chance.randrange(databases), [])
    while events:
        now, _, what, process, shard, batch = heapq.heappop(events)
        if now > seconds:
            break
        if what == "done":
            waiting.setdefault((process, shard), []).append(now)
            if (process, shard) not in busy:
                send(now, process, shard)
            continue
        servers[shard].free += 1
        busy.discard((process, shard))
        serve(now, shard)
        send(now, process, shard)
        for begun in batch:
            if now > seconds / 5:  # the beginning is not typical
                waits.append(now - begun)
            later(now + chance.expovariate(1 / body), "done", process, chance.randrange(databases), [])
    waits.sort()
    if not waits:
        return Outcome(0.0, 0.0, 0.0)
    return Outcome(len(waits) / (0.8 * seconds), waits[len(waits) // 2], waits[len(waits) * 99 // 100])


def _needed(workers: int, per_day: float, per_process: int) -> tuple[int, Outcome]:
    """The smallest number of databases that is enough for *per_day* steps, and the outcome with it."""
    body = workers / (per_day / 86_400)
    for databases in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32):
        found = simulated(workers, body, per_process=per_process, databases=databases)
        if found.steps > 0.9 * per_day / 86_400 and found.p99 < 0.1:
            return databases, found
    raise AssertionError("more than 32 databases")


def main(argv: list[str] | None = None) -> int:
    """Measure what is named, then print the simulation."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("urls", nargs="*", metavar="URL", help="storages to measure; they are written to")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    given = parser.parse_args(argv)
    for url in given.urls:
        with open_storage(url) as storage:
            for what, rate in measured(storage, given.seconds):
                print(f"| {url.partition(':')[0]} | {what} | {rate:,.0f}/s |", flush=True)
    print("| steps a day | workers | in a process | databases | steps/s | median | p99 |")
    for per_day in (1e7, 1e8, 1e9):
        for workers, per_process in ((100, 1), (1_000, 1), (1_000, 100), (10_000, 1), (10_000, 100)):
            if workers / (per_day / 86_400) < 0.01:
                continue  # nobody has bodies that short
            databases, found = _needed(workers, per_day, per_process)
            times = f"{1e3 * found.median:.1f} ms | {1e3 * found.p99:.1f} ms"
            asked = f"{per_day:.0e} | {workers:,} | {per_process}"
            print(f"| {asked} | {databases} | {found.steps:,.0f} | {times} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

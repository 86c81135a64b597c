"""Many enqueued runs, claimed by eight threads on one file, with all limits on.

The oracle knows nothing of how claims are decided: it reads from the rows when each run was claimed and when it
ended, and counts.
"""

import random
import tempfile
import threading
import time
from bisect import bisect_left
from collections import defaultdict
from typing import Any

from flowdsl.core.queues import Queue, row_of, window
from flowdsl.core.records import Run, RunFilter
from flowdsl.core.status import RunStatus
from flowdsl.storage import SQLiteStorage, Storage
from flowdsl.storage.base import Claimed, ClaimNext, OpenRun, PutQueue, UpdateRun

from .report import Report

__all__ = ["claims"]

WORKERS = 8
QUEUES = (
    Queue("free"),
    Queue("narrow", concurrency=12),
    Queue("shared", concurrency=40, per_worker=6),
    Queue("parted", per_partition=3),
    Queue("slow", rate="5/sec", concurrency=30),
)
SHARES = (30, 20, 20, 28, 2)  # of the runs, in a hundred
HELD = 60  # runs that a worker has at a time, at most: more than any limit allows


def _fill(storage: Storage, count: int, rng: random.Random) -> None:
    storage.commit([PutQueue(row_of(queue)) for queue in QUEUES])
    for start in range(0, count, 500):
        storage.commit(
            [
                OpenRun(
                    Run(
                        f"r{n}", "w", f"k{n}", queue=rng.choices(QUEUES, SHARES)[0].name, priority=rng.randrange(3),
                        partition=rng.choice((None, "a", "b", "c")), created_at=float(n),
                    ),
                    0.0,
                )
                for n in range(start, min(start + 500, count))
            ]
        )  # fmt: skip


def _work(storage: Storage, owner: str, rng: random.Random, taken: list[str]) -> None:
    """Claim some and end some of those that are held, until there is nothing left."""
    held: list[Run] = []
    while held or storage.next_due(["w"]) is not None:
        if room := min(HELD - len(held), rng.randint(0, 20)):
            (outcome,) = storage.commit([ClaimNext(owner, 600.0, (("w", ""),), limit=room)])
            assert isinstance(outcome, Claimed)
            taken.extend(run.id for run in outcome.runs)
            held.extend(outcome.runs)
            if not outcome.runs:
                time.sleep(0.002)
        rng.shuffle(held)
        ended, held = held[: (n := rng.randint(0, len(held)))], held[n:]
        changes = {"status": RunStatus.COMPLETED, "finished_at": storage.now()}
        storage.commit([UpdateRun(run.id, changes, epoch=run.epoch, release=True) for run in ended])


def _most(spans: list[tuple[float, float]]) -> int:
    """How many of *spans* overlap at a moment, at most; what ends where another begins does not."""
    edges = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    most = now = 0
    for _, change in edges:
        now += change
        most = max(most, now)
    return most


def _judge(storage: Storage, taken: dict[str, list[str]], count: int) -> list[str]:
    runs = storage.list_runs(RunFilter())
    wrong = [f"{run.id} is {run.status}" for run in runs if run.status is not RunStatus.COMPLETED][:5]
    by = {run_id: owner for owner, ids in taken.items() for run_id in ids}
    if len(by) != count or sum(map(len, taken.values())) != count:
        wrong.append(f"{sum(map(len, taken.values()))} claims of {len(by)} runs, not {count}")
    rooms: dict[tuple[str, ...], list[tuple[float, float]]] = defaultdict(list)
    for run in runs:
        span = (run.claimed_at or 0.0, run.finished_at or 0.0)
        queue = str(run.queue)
        rooms["concurrency", queue].append(span)
        rooms["per_worker", queue, by.get(run.id, "")].append(span)
        rooms["per_partition", queue, run.partition or "none"].append(span)
    for queue in QUEUES:
        for (limit, name, *rest), spans in rooms.items():
            allowed = getattr(queue, limit)
            if name == queue.name and allowed is not None and _most(spans) > allowed:
                wrong.append(f"{limit} of {name} {rest}: {_most(spans)} at once, not {allowed}")
        if queue.rate is not None:
            allowed, seconds = window(queue.rate)
            begun = sorted(begin for begin, _ in rooms["concurrency", queue.name])
            most = max(
                (n - bisect_left(begun, begin - seconds + 1e-6) + 1 for n, begin in enumerate(begun)),
                default=0,
            )
            if most > allowed:
                wrong.append(f"rate of {queue.name}: {most} began within {seconds:g} s, not {allowed}")
    return wrong


def claims(report: Report, given: Any) -> None:
    """``count`` runs."""
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="flowdsl-claims-", dir=given.directory) as directory:
        with SQLiteStorage(f"{directory}/flow.db", synchronous="normal") as storage:
            _fill(storage, given.count, rng)
            begun = time.monotonic()
            taken: dict[str, list[str]] = {f"worker-{n}": [] for n in range(WORKERS)}
            threads = [
                threading.Thread(
                    target=_work,
                    args=(storage, owner, random.Random(f"{given.seed}/{owner}"), mine),
                )
                for owner, mine in taken.items()
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            report.counts["claimed a second"] = round(given.count / (time.monotonic() - begun))
            report.counts["claimed"] = sum(map(len, taken.values()))
            wrong = _judge(storage, taken, given.count)
    if wrong:
        report.fail("claims", *wrong[:20])

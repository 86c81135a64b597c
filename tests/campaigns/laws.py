"""Generated programs that use every verb, in this process, killed at every place where a life can end: before and after
each commit and in each body, and some once more while they recover. The grammar stands in ``verb_grammar.py``, the
laws in ``verb_laws.py``: result, effects, run store and journal are those of an execution without faults. The full form
takes a PostgreSQL server as well; with ``--kind`` all programs are on ``memory``, ``sqlite`` or ``postgres``.
"""

import random
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from postgres_server import postgres_url
from verb_grammar import GRAMMAR, Fault, endings_of
from verb_laws import Case

from flowdsl.testing import EffectLog

from .lives import Ended, Life
from .plants import PLANTS
from .report import Report

__all__ = ["laws"]

FULL = 10_000
"""From so many executions on, a server takes part."""


def _check(index: int, given: Any, log: EffectLog) -> int:
    """All executions of one program."""
    if given.plant:
        PLANTS[given.plant]()
    rng = random.Random(f"{given.seed}/{index}/how")
    program = GRAMMAR.of_seed(f"{given.seed}/{index}")
    how: dict[str, Any] = {
        "is_async": rng.random() < 0.5,
        "kind": given.kind
        or rng.choice(["memory", "memory", "memory", "sqlite", *["postgres"] * (given.count >= FULL)]),
        "ending": rng.choice([*endings_of(program), "return"]),
        "cancel_at": rng.randrange(8),
    }
    faults: list[Fault] = []
    try:
        case = Case(program, **how)
        for point in case.points():
            again = [Fault(rng.randrange(20), rng.random() < 0.5)] if rng.random() < 0.3 else []
            faults = [point, *again]
            case.check(faults, rng.choice([1.0, 7200.0]))
            log.note("checked", how["kind"], how["ending"], len(faults))
    except Exception as error:  # a law that does not hold, or whatever came out of an execution
        log.note("wrong", f"{program}, {how}, {faults}: {type(error).__name__}: {error}")
    return 0


def laws(report: Report, given: Any) -> None:
    """``count`` executions that are killed, of as many programs as it takes, or of the program *only*."""
    index = given.only or 0
    if given.kind == "postgres" or given.count >= FULL:
        postgres_url()  # starts the server, for all processes to come
    with tempfile.TemporaryDirectory(prefix="flowdsl-laws-", dir=given.directory) as directory:
        while report.counts["executions"] < given.count and len(report.failures) < (1 if given.plant else 5):
            log = EffectLog(Path(directory) / str(index))
            ended = Life(partial(_check, index, given, log), limit=600).wait()
            report.counts["programs"] += 1
            for what, *rest in log.read():
                if what == "wrong":
                    report.fail(index, *rest)
                    continue
                kind, ending, deaths = rest
                report.counts["executions"] += 1
                report.counts["kills"] += deaths
                report.counts[f"on {kind}"] += 1
                report.counts[f"that end with a {ending}"] += 1
            if ended != Ended():
                report.fail(index, f"the process ended with {ended}")
            log.path.unlink(missing_ok=True)
            if given.only is not None:
                return
            index += 1

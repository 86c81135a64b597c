"""``python -m tests.campaigns NAME``: run one campaign, print one line of JSON, end with 1 when it is red."""

import argparse
import gc
import logging
import signal
import sys
import warnings
from importlib import import_module
from pathlib import Path

from . import see_helpers
from .faults import preload

FULL = {
    "kills": 10_000, "crowd": 1_000, "damage": 1_000, "disk": 1_000, "laws": 100_000,
    "cancels": 5_000, "transactions": 1_000, "claims": 100_000, "year": 365, "fleet": 2_000,
    "restarts": 100, "duels": 1_000,
    "chain": 10_000,
}  # fmt: skip
"""The campaigns, each a module with a function of the same name, and how many trials the full form has."""


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        "python -m tests.campaigns", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("campaign", choices=FULL)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, help="how many trials (default: the full form)")
    parser.add_argument("--only", type=int, metavar="N", help="the program number N alone")
    parser.add_argument("--kind", help="only trials of this kind")
    parser.add_argument("--plant", metavar="BUG", help="plant a bug first: the campaign has to fail")
    parser.add_argument(
        "--directory", type=Path, help="where the databases are made (default: a temporary one)"
    )
    given = parser.parse_args()
    preload("tests.campaigns", sys.argv[1:])
    see_helpers()  # a fork of a process that has imported this begins with another path
    report_module = import_module(".report", __package__)
    for name in ("flowdsl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    if given.count is None:
        given.count = FULL[given.campaign]
    report = report_module.Report(given.campaign, given.seed, given.count, given.plant)
    run = getattr(import_module(f".{given.campaign}", __package__), given.campaign)
    gc.freeze()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run(report, given)
    except KeyboardInterrupt:
        report.head["ended early"] = True
        import_module(".lives", __package__).end_all()
    print(report.line())
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())

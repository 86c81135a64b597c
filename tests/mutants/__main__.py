"""``python -m tests.mutants``: see the package."""

import argparse
import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from .bugs import BUGS, Bug
from .runner import Workshop, judge

WHOLE = ("tests", "--ignore=tests/mutants", "--ignore=tests/typing")


def main() -> int:
    """Judge the mutants that were asked for; 0 if all were killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("names", nargs="*", metavar="NAME", help="by default all")
    parser.add_argument("--whole", action="store_true", help="execute the whole quick suite")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    parser.add_argument("--trust", action="store_true", help="do not execute the tests without a bug first")
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in BUGS]
    if unknown:
        parser.error(f"no such mutants: {', '.join(unknown)}; there are {', '.join(BUGS)}")
    bugs = [BUGS[name] for name in asked.names or BUGS]
    tests = WHOLE if asked.whole else tuple(sorted({test for bug in bugs for test in bug.tests}))
    workshops = [Workshop() for _ in range(asked.jobs)]
    if not asked.trust:
        code, said = workshops[0].tested(tests)
        if code:
            print(said[-4000:], file=sys.stderr)
            print("the tests are red without a bug, so they can say nothing about one", file=sys.stderr)
            return 2
    free = SimpleQueue[Workshop]()
    for workshop in workshops:
        free.put(workshop)

    def judged(bug: Bug) -> dict[str, Any]:
        workshop = free.get()
        try:
            return judge(workshop, bug, WHOLE if asked.whole else None)
        finally:
            free.put(workshop)

    count: Counter[str] = Counter()
    with ThreadPoolExecutor(asked.jobs) as pool:
        for facts in pool.map(judged, bugs):
            count[facts["outcome"]] += 1
            print(json.dumps(facts), flush=True)
    for workshop in workshops:
        workshop.close()
    print(json.dumps({"mutants": len(bugs), **count}), flush=True)
    return 0 if count["killed"] == len(bugs) else 1


if __name__ == "__main__":
    sys.exit(main())

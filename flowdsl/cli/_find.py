"""Finding a run by part of its id. If there is none, the error suggests the nearest."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from attrs import evolve

from flowdsl.cli._command import Failure
from flowdsl.core.records import Run, RunFilter, Step
from flowdsl.core.words import nearest
from flowdsl.runtime import Runtime

__all__ = ["every_run", "find_run", "find_runs", "named", "near_step", "recent_workflows", "row_of"]

PAGE = 500  # runs read at once while looking through all of them
_FEWEST_DIGITS = 4  # of a key, as in git
_SHOWN = 4  # candidates named in an error
_RECENT = 2000  # runs among which a near name is looked for


def every_run(runtime: Runtime, where: RunFilter | None = None) -> Iterator[Run]:
    """All runs that match *where*, read page by page."""
    where = evolve(where or RunFilter(), limit=PAGE)
    while True:
        page = runtime.storage.list_runs(where)
        yield from page
        if len(page) < PAGE:
            return
        where = evolve(where, after=page[-1].id)


def row_of(runtime: Runtime, run_id: str) -> Run:
    """The row of a run that existed a moment ago."""
    found = runtime.storage.get_run(run_id)
    if found is None:
        raise Failure(f"no run {run_id!r} in this storage any more")
    return found


def find_run(runtime: Runtime, text: str) -> Run:
    """The one run that *text* names: its id, the beginning of its id or key, or an id that is shortened by
    ``…`` as in tables.
    """
    found = runtime.storage.get_run(text) if text else None
    if found is not None:
        return found
    matches = [run for run in every_run(runtime) if _means(text, run)] if text else []
    if not matches:
        near = nearest(text, (run.id for run in islice(every_run(runtime), _RECENT)))
        raise Failure(f"no run {text!r}{near}", "flowdsl runs")
    # A child's id begins with its parent's id. The part that they share names the parent.
    first = min(matches, key=lambda run: len(run.id))
    if all(run is first or run.id.startswith(first.id + "/") for run in matches):
        return first
    raise Failure(f"{text!r} could be any of {_some([run.id for run in matches])}", "give more of the id")


def find_runs(runtime: Runtime, texts: Iterable[str]) -> list[Run]:
    """The runs that *texts* name, each once, in that order. If one is not found, it raises before anything is
    done.
    """
    return list({run.id: run for run in (find_run(runtime, text) for text in texts)}.values())


def recent_workflows(runtime: Runtime) -> list[str]:
    """The workflows of recent runs."""
    return list(dict.fromkeys(run.workflow for run in islice(every_run(runtime), _RECENT)))


def named(steps: Iterable[Step], text: str) -> list[Step]:
    """The steps that *text* names: the beginning of a key, or a name, or the end of a name."""
    if not text:
        return []
    return [s for s in steps if s.key.startswith(text) or s.path == text or s.path.endswith("." + text)]


def near_step(steps: Sequence[Step], text: str) -> str:
    """A hint that names the step that is nearest to *text*; ``""`` if none is near."""
    return nearest(text, dict.fromkeys(step.path.rpartition(".")[2] for step in steps))


def _means(text: str, run: Run) -> bool:
    if run.id.startswith(text):
        return True
    if len(text) >= _FEWEST_DIGITS and run.key.startswith(text):
        return True
    parts = re.split(r"…|\.\.\.", text)
    if len(parts) != 2:
        return False
    before, after = parts
    return len(run.id) > len(before) + len(after) and run.id.startswith(before) and run.id.endswith(after)


def _some(ids: list[str]) -> str:
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return ", ".join(ids[:_SHOWN]) + more

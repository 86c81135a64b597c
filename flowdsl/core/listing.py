"""Which runs a list shows, and in what order."""

from collections.abc import Mapping

from flowdsl.core.records import Run, RunFilter

__all__ = ["matches", "place_of"]

_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def place_of(run: Run) -> tuple[float, str]:
    """Where *run* stands in a list: the oldest first, and by id those of one moment."""
    return run.created_at, run.id


def matches(run: Run, where: RunFilter) -> bool:
    """Whether all conditions of *where* hold for *run*, apart from its place in the list.

    >>> matches(Run(id="Order-17", workflow="shop.checkout", key="k"), RunFilter(text="order"))
    True
    """
    if isinstance(where.tags, Mapping):
        items = run.tags.items() if isinstance(run.tags, Mapping) else ()
        tagged = where.tags.items() <= set(items)
    else:
        tagged = all(name in run.tags for name in where.tags)
    return (
        tagged
        and (not where.status or run.status in where.status)
        and (where.workflow is None or run.workflow == where.workflow)
        and (where.key is None or run.key == where.key)
        and (where.parent is None or run.parent == where.parent)
        and (not where.owner or run.owner in where.owner)
        and (where.created_after is None or run.created_at >= where.created_after)
        and (where.created_before is None or run.created_at < where.created_before)
        and (not where.text or _has_text(run, where.text))
    )


def _has_text(run: Run, text: str) -> bool:
    tags = [*run.tags, *run.tags.values()] if isinstance(run.tags, Mapping) else run.tags
    wanted = _folded(text)
    return any(wanted in _folded(one) for one in (run.id, run.workflow, *tags))


def _folded(text: str) -> str:
    """*text* with its ASCII letters in lower case. Databases do so, and change no other letters."""
    return text.translate(_LOWER)

"""Parts that statements of SQLite are put together from."""

from collections.abc import Iterable, Sequence

__all__ = ["chunks_of", "marks", "names"]


def names(columns: Sequence[str]) -> str:
    """A list of columns."""
    return ", ".join(f'"{name}"' for name in columns)


def marks(count: int) -> str:
    """Placeholders for *count* values."""
    return ", ".join("?" * count)


def chunks_of(ids: Iterable[str]) -> list[list[str]]:
    """*ids* in lists of few sizes, so that there are few statements. The last list is filled up with one of
    its ids."""
    wanted = list(ids)
    chunks = []
    for start in range(0, len(wanted), 512):
        chunk = wanted[start : start + 512]
        size = next(size for size in (1, 8, 64, 512) if size >= len(chunk))
        chunks.append(chunk + chunk[:1] * (size - len(chunk)))
    return chunks

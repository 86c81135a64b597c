"""Shortening texts for terminals, if their end matters."""

from rich.cells import cell_len

__all__ = ["cut_middle", "cut_start"]


def cut_start(text: str, width: int) -> str:
    """The end of a dotted path, from a dot on if there is one.

    >>> cut_start("shop.orders.checkout", 14), cut_start("checkout", 6)
    ('….checkout', '…ckout')
    """
    if cell_len(text) <= width:
        return text
    kept = _tail(text, width - 1)
    return "…" + kept[max(kept.find("."), 0) :] if width > 0 else ""


def cut_middle(text: str, width: int) -> str:
    """The beginning and end of an id. The end tells similar ids apart. Commands accept such a shortened id.

    >>> cut_middle("checkout-53b95caf51b24ebf-12", 18)
    'checkout-53b95…-12'
    """
    if cell_len(text) <= width:
        return text
    number = text.rpartition("-")[2]
    last = len(number) + 1 if len(number) < min(5, width - 4) else min(6, width // 3)
    first = width - 1 - last
    if first > 0:
        return _head(text, first) + "…" + _tail(text, last)
    return _head(text, width - 1) + "…" if width > 0 else ""


def _head(text: str, width: int) -> str:
    """As much of the beginning as fits."""
    used = 0
    for place, char in enumerate(text):
        used += cell_len(char)
        if used > width:
            return text[:place]
    return text


def _tail(text: str, width: int) -> str:
    """As much of the end as fits."""
    return _head(text[::-1], width)[::-1]

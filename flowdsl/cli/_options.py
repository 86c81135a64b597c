"""Options whose value is JSON."""

import json
from typing import Any

import click

from flowdsl.core.preview import preview

__all__ = ["NOTHING", "as_json"]

NOTHING: Any = object()
"""The value of an option that was not given. (``null`` is a value.)"""


def as_json(_: click.Context, param: click.Parameter, value: str | None) -> Any:
    """Read an option that is JSON."""
    if value is None:
        return NOTHING
    try:
        return json.loads(value, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        text = f"{preview(value, 40)} is not JSON ({error}); a text is in double quotes: '\"like this\"'"
        raise click.BadParameter(text, param=param) from None


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")

"""The fields of every JSON document: programs rely on them, so they are added to, never renamed or removed."""

import json
from pathlib import Path

import pytest

FIELDS = json.loads((Path(__file__).parent / "json_fields.json").read_text())
"""Command → field → the fields of what stands in it; a list stands for each of its items."""


def _shape(value, depth=0):
    """The fields of a document, down to where user data begins."""
    if isinstance(value, list):
        shapes = [_shape(one, depth) for one in value if isinstance(one, dict)]
        return {name: found for shape in shapes for name, found in (shape or {}).items()} if shapes else None
    if not isinstance(value, dict) or depth > 1:
        return None
    return {name: _shape(inner, depth + 1) for name, inner in value.items()}


def _missing(wanted, found, where=""):
    for name, inner in wanted.items():
        if name not in (found or {}):
            yield f"{where}{name}"
        elif inner:
            yield from _missing(inner, found[name], f"{where}{name}.")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("runs", []),
        ("show", ["sold"]),
        ("steps", ["sold"]),
        ("logs", ["diary-1"]),
        ("top", []),
        ("export", ["sold"]),
        ("signal", ["left", "go"]),
        ("cancel", ["left"]),
        ("delete", ["sold", "--yes"]),
        ("prune", ["--older-than", "0s"]),
        ("fork", ["sold", "--before", "charge"]),
        ("doctor", []),
        ("completion", ["bash"]),
    ],
)
def test_no_field_is_ever_missing(command, arguments, shop, diary, answer, request):
    """Every field that a document once had is there."""
    shop.sell("x", id="sold")
    shop.fail("y", id="declined")
    shop.break_off("z", id="left")
    diary(1)
    found = _shape(answer(command, *arguments))
    assert list(_missing(FIELDS[command], found)) == []


def test_watch_has_its_fields(shop, diary, invoke):
    """Each line says what it is about."""
    diary(1)
    (line,) = invoke("watch", "diary-1", "--json").stdout.splitlines()
    assert list(_missing(FIELDS["watch"], _shape(json.loads(line)))) == []


def test_the_list_names_every_command_with_a_document():
    """A new command adds its fields to the list."""
    from flowdsl.cli._app import COMMANDS

    executing = {"resume", "retry", "resolve", "ui", "worker"}  # in their own tests, with code that executes
    assert set(FIELDS) == set(COMMANDS) - executing

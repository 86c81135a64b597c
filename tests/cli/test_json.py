"""The fields of every JSON document: programs rely on them, so they are added to, never renamed or removed.

``json_fields.txt`` lists them: a command, then its fields; those of what stands in a field have its name in
front.
"""

import json
import re
from pathlib import Path

import pytest

from flowdsl.cli._app import COMMANDS

TEXT = (Path(__file__).parent / "json_fields.txt").read_text()
FIELDS = {command: set(names.split()) for command, names in re.findall(r"^(\w+):((?:.|\n )*)", TEXT, re.M)}
OF_USERS = {"tags", "extra", "fields"}
"""What stands in these is named by users, or by the kind of a record."""


def fields_of(value, where=""):
    """The names of all fields of a document."""
    if isinstance(value, list):
        return {name for one in value for name in fields_of(one, where)}
    if not isinstance(value, dict):
        return set()
    found = {where + name for name in value}
    for name, inner in value.items():
        if name not in OF_USERS:
            found |= fields_of(inner, f"{where}{name}.")
    return found


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
        ("backup", ["copy.db"]),
        ("tag", ["sold", "team=north"]),
        ("completion", ["bash"]),
        ("rekey", []),
        ("queues", ["put", "mail"]),
    ],
)
def test_no_field_is_ever_missing(command, arguments, shop, diary, answer):
    """Each document still has every field that it ever had."""
    shop.sell("x", id="sold")
    shop.fail("y", id="declined")
    shop.break_off("z", id="left")
    diary(1)
    assert FIELDS[command] - fields_of(answer(command, *arguments)) == set()


def test_watch_has_its_fields(shop, diary, invoke):
    """Each line of ``watch --json`` names its event and has the fields of that event."""
    diary(1)
    (line,) = invoke("watch", "diary-1", "--json").stdout.splitlines()
    assert FIELDS["watch"] - fields_of(json.loads(line)) == set()


def test_the_list_names_every_command_with_a_document():
    """Each command with a document is in the list of fields."""
    elsewhere = {
        "resume",
        "retry",
        "resolve",
        "ask",
        "stream",
        "ui",
    }  # in their own tests, with runs made for them
    assert set(FIELDS) == set(COMMANDS) - elsewhere

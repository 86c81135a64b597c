"""The page about the inside of flowdsl: its tables are right, and its pictures are up to date."""

import re
import sys
from pathlib import Path

import pytest

import flowdsl
import flowdsl.verbs
from flowdsl import Runtime
from flowdsl.cli._app import COMMANDS

ROOT = Path(__file__).parent.parent
LIBRARY = Path(flowdsl.__file__).parent
PAGE = (ROOT / "docs" / "internals.md").read_text(encoding="utf-8")
PLACES = re.findall(r"^\| (.+) \| `([\w/]+\.py)` \| `(\w+)` \|$", PAGE, re.MULTILINE)
OPERATIONS = sorted(module.name for module in (LIBRARY / "engine" / "operations").glob("[!_]*.py"))


@pytest.mark.parametrize(("what", "path", "name"), PLACES, ids=[what for what, _, _ in PLACES])
def test_what_is_looked_for_is_where_the_table_says(what: str, path: str, name: str) -> None:
    """Each module in the tables exists, and defines the name."""
    text = (LIBRARY / path).read_text(encoding="utf-8")
    assert re.search(rf"^(?:(?:async )?def|class) {name}\b|^{name}\b *(?::[^=\n]*)?=", text, re.MULTILINE)


def test_every_verb_and_every_command_is_in_the_table() -> None:
    """The tables name each module of a verb and each command."""
    named = {path for _, path, _ in PLACES}
    mode = "mode.py"  # chooses among step and send, and is no verb
    assert {f"engine/operations/{module}" for module in OPERATIONS if module != mode} <= named
    assert {f"cli/{command}.py" for command in COMMANDS} <= named


def test_every_call_of_the_api_is_in_the_table() -> None:
    """The table names each verb and each method of a runtime."""
    named = " ".join(what for what, _, _ in PLACES)
    verbs = [verb for verb in flowdsl.verbs.__all__ if not re.search(rf"`{verb}\b", named)]
    methods = [name for name in dir(Runtime) if name[0] != "_" and f"`rt.{name}`" not in named]
    assert not verbs + methods


def test_pictures_are_what_is_drawn_today(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures are those that the import contracts and status tables give today."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    monkeypatch.delitem(sys.modules, "pictures", raising=False)
    from pictures import IMAGES, drawn

    stale = [name for name, text in drawn().items() if (IMAGES / name).read_text(encoding="utf-8") != text]
    assert not stale, "draw them again: python docs/pictures.py"

"""How wide things are, and what becomes of what does not fit."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from flowdsl.cli._output import Column, Output, json_text

TEXTS = st.text(max_size=60)
COLUMNS = (
    Column("id"),
    Column("path", least=4),
    Column("wide", wide=100),
    Column("args", least=4, right=True),
)


@pytest.fixture
def printed(capsys, monkeypatch):
    """What an output of a given width prints of something, as lines."""

    def run(show, width=None):
        if width is None:
            monkeypatch.delenv("COLUMNS", raising=False)
        else:
            monkeypatch.setenv("COLUMNS", str(width))
        capsys.readouterr()
        show(Output())
        return capsys.readouterr().out.splitlines()

    return run


@given(rows=st.lists(st.tuples(TEXTS, TEXTS, TEXTS, TEXTS), max_size=5), width=st.integers(40, 120))
def test_a_table_fits(rows, width):
    """A table is never wider than the terminal, and each row is one line, whatever its text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        out = Output()
    with out.console.capture() as seen:
        out.table(COLUMNS, rows, indent=2)
    lines = seen.get().splitlines()
    assert len(lines) == len(rows) + 1
    assert max(map(cell_len, lines)) <= width
    assert ("wide" in lines[0]) is (width >= 100)


@pytest.mark.parametrize("width", range(38, 60))
def test_what_is_cut_ends_in_a_mark(width):
    """A cell that has not enough room ends in ``…``, also where another column may not be narrower."""
    columns = (Column("id"), Column("workflow", least=12), Column("arguments", least=8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        out = Output()
    with out.console.capture() as seen:
        out.table(columns, [["nightly-17", "shop.approve", "name='a long one', and more"]])
    line = seen.get().splitlines()[1].rstrip()
    assert "shop.approve" in line
    assert line.endswith("…" if width < 53 else "more")


def test_a_column_without_anything_takes_no_room():
    """A column without title and texts is left out, so the title beside it is not cut."""
    columns = (Column("state"), Column("arguments", least=8), Column("", least=8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        out = Output()
    with out.console.capture() as seen:
        out.table(columns, [["running", "n=3", ""]])
    assert [line.rstrip() for line in seen.get().splitlines()] == ["state    arguments", "running  n=3"]


def test_piped_tables_are_whole(printed):
    """Without a terminal all columns are there, aligned, and nothing is shortened."""
    text = "long " * 60
    lines = printed(lambda out: out.table(COLUMNS, [["a", text, "x", "1"], ["b", "short", "y", "日本"]]))
    assert lines[1] == f"a   {text}  x        1"
    assert lines[2].split() == ["b", "short", "y", "日本"]
    assert len({cell_len(line) for line in lines}) == 1


def test_long_facts_wrap_behind_their_name(printed):
    """A value longer than the line wraps below itself, complete."""
    value = "word " * 30 + "x" * 90
    lines = printed(lambda out: out.facts([("name", "short"), ("result", value)]), width=50)
    assert max(map(cell_len, lines)) <= 50
    assert lines[0].split() == ["name", "short"]
    assert all(line.startswith(" " * 10) for line in lines[2:])
    assert "".join("".join(line[10:] for line in lines[1:]).split()) == "".join(value.split())


@given(st.text())
def test_json_is_ascii_and_loads_to_the_same(text):
    """JSON contains nothing that a terminal obeys, and loses nothing, not even lone surrogates."""
    shown = json_text({text: [text]})
    assert shown.isascii()
    assert shown.isprintable()
    assert json.loads(shown) == {text: [text]}


@pytest.mark.parametrize("text", ["\x7f", "\x9b31m", "\u202e", "\u200b", "\u2028", "\ud800", "\0"])
def test_what_is_not_printable_is_escaped(text):
    """DEL, C1 controls, bidi and zero-width marks, separators and lone surrogates are printed as escapes."""
    assert json_text(text) == f'"\\u{ord(text[0]):04x}' + text[1:] + '"'


def test_terminals_that_know_ascii_only(shop, spawn):
    """In an ASCII terminal, signs and dots become ASCII, and JSON escapes all other characters."""
    run = shop.fail("日本")
    env = {"PYTHONIOENCODING": "ascii", "PATH": "", "COLUMNS": "80"}
    listed, _ = spawn("runs", env=env).communicate()
    assert "x failed" in listed
    assert listed.isascii()
    shown, _ = spawn("show", run.id, "--json", env=env).communicate()
    assert shown.isascii()
    assert json.loads(shown)["args"] == "order='日本'"


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("orders", [1, 30])
def test_a_closed_pipe_is_no_error(options, orders, shop, spawn):
    """``flowdsl runs | head -1`` ends silently, whether or not the output fits into the pipe."""
    for order in range(orders):
        shop.sell(f"{order}" * 100)
    process = spawn("runs", "--all", *options)
    process.stdout.close()
    assert process.wait() in (0, 1)
    assert process.stderr.read() == ""


def test_colours_can_be_switched_off(shop, terminal):
    """NO_COLOR turns colours off."""
    shop.sell("apples")
    assert "\x1b[3" not in terminal("runs", width=100, NO_COLOR="1").raw

"""How wide things are, and what becomes of what does not fit."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from flowdsl.cli import output, text
from flowdsl.cli.output import Column, Output

TEXTS = st.text(max_size=60)
CUTS = [text.cut_end, text.cut_start, text.cut_middle]


@pytest.mark.parametrize("cut", CUTS)
@given(value=TEXTS, width=st.integers(0, 70))
def test_a_cut_text_fits(cut, value, width):
    """A shortened text is never wider than asked for, and one that fits stays as it is."""
    shown = text.clean(value)
    done = cut(shown, width)
    assert cell_len(done) <= width
    assert done == shown or cell_len(shown) > width


@given(value=TEXTS)
def test_clean_text_is_one_printable_line(value):
    """Whatever a storage holds, what is shown is one printable line; cleaning twice changes nothing."""
    done = text.clean(value)
    assert done.isprintable()
    assert text.clean(done) == done


@given(
    rows=st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=5),
    width=st.integers(40, 120),
)
def test_a_table_fits(rows, width):
    """A table whose floors fit is never wider than the terminal, and has a line for each row."""
    out = Output()
    out.width = width
    lines = []
    out.line = lambda *cells: lines.append("".join(c if isinstance(c, str) else c[0] for c in cells).rstrip())
    columns = (
        Column("id", (12, 8), text.cut_middle),
        Column("path", (12, 8), text.cut_start, right=True),
        Column("args", (8, 0)),
    )
    out.table(columns, rows, indent=2)
    assert len(lines) == len(rows) + 1
    assert max(map(cell_len, lines)) <= width


@given(value=st.text(alphabet="ab 日", max_size=80), room=st.integers(20, 40))
def test_wrapped_text_is_whole(value, room):
    """Wrapping loses nothing but the spaces at the ends of lines."""
    parts = output._wrapped(value, room)
    assert all(cell_len(part) <= room for part in parts)
    assert "".join("".join(parts).split()) == "".join(value.split())


@given(seconds=st.floats(0, 1e8))
def test_durations_are_short(seconds):
    """A duration takes few columns, whatever its length."""
    assert 2 <= len(text.span(seconds)) <= 8


def test_sizes_and_times_of_nothing():
    """What is not known is shown as nothing."""
    assert text.span(None) == text.moment(None) == ""
    assert text.size(0) == "0 B"
    assert text.size(3 << 40) == "3.0 TiB"


def test_terminals_that_know_ascii_only(shop, spawn):
    """With an ASCII terminal, signs and dots become ASCII, and JSON escapes what is not."""
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
    """``flowdsl runs | head -1`` ends without a word, whether all of it fits into the pipe or not."""
    for order in range(orders):
        shop.sell(f"{order}" * 100)
    process = spawn("runs", "--all", *options)
    process.stdout.close()
    assert process.wait() in (0, 1)
    assert process.stderr.read() == ""


def test_colours_can_be_switched_off(shop, terminal):
    """NO_COLOR is respected."""
    shop.sell("apples")
    assert "\x1b[3" not in terminal("runs", width=100, NO_COLOR="1").raw

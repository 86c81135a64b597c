"""What becomes of an id and of a dotted name that are too long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from flowdsl.cli._text import cut_middle, cut_start
from flowdsl.core.words import clean


@pytest.mark.parametrize("cut", [cut_start, cut_middle])
@given(value=st.text(max_size=60), width=st.integers(0, 70))
def test_a_cut_text_fits(cut, value, width):
    """A shortened text is never too wide, and a text that fits is unchanged."""
    shown = clean(value)
    done = cut(shown, width)
    assert cell_len(done) <= width
    assert done == shown or cell_len(shown) > width

"""Names that are equal in every process, and the digests that identify calls."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdsl.core.keys import (
    ENCODING_VERSION,
    branch_scope,
    content_digest,
    explain,
    object_path,
    run_key,
    short,
    step_key,
)

texts = st.text(max_size=4) | st.sampled_from(["", "1:a", "a", "\udc80"])
parts = st.tuples(texts, texts, texts, st.binary(max_size=4))

# -------------------------------------------------------------------------------------------- digests


@given(parts, parts)
def test_content_digests_are_equal_exactly_if_all_parts_are(a: Any, b: Any) -> None:
    """Two different calls never give the hash the same bytes."""
    assert (content_digest(*a) == content_digest(*b)) == (a == b)


@given(texts, texts, texts, st.binary(max_size=4))
def test_a_boundary_between_parts_cannot_be_moved(a: str, b: str, c: str, canonical: bytes) -> None:
    """Moving characters from one part to the next changes the digest."""
    found = {content_digest(a + b, c, "", canonical), content_digest(a, b + c, "", canonical)}
    assert len(found) == (1 if not b else 2)


@given(st.tuples(parts, st.integers(0, 3)), st.tuples(parts, st.integers(0, 3)))
def test_step_keys_are_equal_exactly_if_content_and_occurrence_are(a: Any, b: Any) -> None:
    """Step keys are equal exactly if content and occurrence are equal, and have 40 hex digits."""
    left, right = (step_key(content_digest(*content), occurrence) for content, occurrence in (a, b))
    assert (left == right) == (a == b)
    assert len(left) == 40
    assert int(left, 16) >= 0


def test_kinds_of_keys_do_not_meet() -> None:
    """A step, a run and a branch with the same parts have different keys."""
    content = content_digest("", "a", "", b"")
    found = {step_key(content), step_key(content, 1), run_key("a", "", b""), branch_scope("", "a", 0, 0)}
    assert len(found) == 4


@given(st.tuples(texts, texts, st.integers(0, 2), st.integers(0, 2)), st.data())
def test_branch_scopes_are_equal_exactly_if_all_parts_are(a: Any, data: st.DataObject) -> None:
    """Branch scopes are equal exactly if scope, kind, ordinal and index are equal."""
    b = data.draw(st.tuples(texts, texts, st.integers(0, 2), st.integers(0, 2)))
    assert (branch_scope(*a) == branch_scope(*b)) == (a == b)


def test_short_keys_are_beginnings() -> None:
    """A shortened key is the beginning of the key, as in git."""
    key = run_key("a", "", b"")
    assert key.startswith(short(key))
    assert len(short(key)) == 10


def test_the_explanation_names_all_that_counts() -> None:
    """The explanation has each part of the key, what was left out and why, and ends with the key."""
    text = explain(
        path="shop.charge",
        canonical=b"x",
        counted=[("amount", "10")],
        defaulted=[("currency", "'EUR'")],
        ignored=["client"],
        receiver="<Shop> (not counted)",
        scope="ab12",
        version="2",
        occurrence=3,
    )
    lines = [line.split(None, 1) for line in text.splitlines()]
    assert lines == [
        ["encoding", f"version {ENCODING_VERSION}"],
        ["scope", "ab12"],
        ["path", "shop.charge"],
        ["version", "2"],
        ["receiver", "<Shop> (not counted)"],
        ["argument", "amount=10"],
        ["left", "out    currency='EUR' (equals its default)"],
        ["left", "out    client (ignored)"],
        ["occurrence", "3 (after 3 equal in its scope)"],
        ["key", step_key(content_digest("ab12", "shop.charge", "2", b"x"), 3)],
    ]


# ---------------------------------------------------------------------------------------------- paths


class Outer:
    class Inner:
        def method(self) -> None: ...


def test_paths_of_functions_and_classes() -> None:
    """A path is module and qualified name; a C method without a module counts as a built-in."""
    assert object_path(Outer.Inner.method) == f"{__name__}.Outer.Inner.method"
    assert object_path(Outer) == f"{__name__}.Outer"
    assert object_path(len) == "builtins.len"
    assert object_path(dict.fromkeys) == "builtins.dict.fromkeys"


def test_what_has_no_name_has_no_path() -> None:
    """The path of a value without a name is an error that says so."""
    with pytest.raises(TypeError, match="int object has no qualified name"):
        object_path(3)

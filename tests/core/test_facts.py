"""Facts: small typed values of one kind of record, as text and back."""

import pytest
from attrs import fields
from hypothesis import given
from hypothesis import strategies as st

from flowdsl.core import facts
from flowdsl.core.facts import (
    Beating,
    Changed,
    ChildRun,
    Facts,
    Forked,
    FromMemo,
    InDoubt,
    Logged,
    Published,
    Retrying,
    Scheduled,
    Sent,
    Sleeping,
    Stored,
    Undoable,
    Waiting,
    Won,
    facts_of,
    generation_of,
)
from flowdsl.core.records import Step
from flowdsl.errors import CorruptPayload

texts = st.text(max_size=20)
moments = st.floats(allow_nan=False, allow_infinity=False)
some_text = st.none() | texts
draws = st.lists(st.tuples(texts, st.dictionaries(texts, st.integers(0, 9), max_size=3)), max_size=3)
generation = st.integers(0, 1_000_000)
any_facts = st.one_of(
    st.builds(Facts, generation=generation, begun=st.lists(moments, max_size=3)),
    st.builds(Sleeping, moments, generation=generation),
    st.builds(Waiting, texts, st.none() | moments, some_text, generation=generation),
    st.builds(Retrying, moments, texts, generation=generation, begun=st.lists(moments, max_size=3)),
    st.builds(InDoubt, undo=some_text, generation=generation),
    st.builds(Undoable, texts, generation=generation),
    st.builds(FromMemo, generation=generation),
    st.builds(Scheduled, moments, texts, generation=generation),
    st.builds(Stored, texts, texts, generation=generation),
    st.builds(ChildRun, texts, generation=generation),
    st.builds(Sent, texts, texts, texts, generation=generation),
    st.builds(Published, texts, st.integers(0, 9), generation=generation),
    st.builds(Won, st.integers(0, 9), generation=generation),
    st.builds(Beating, moments, generation=generation),
    st.builds(Logged, st.dictionaries(texts, texts | moments, max_size=3), generation=generation),
    st.builds(Forked, draws, texts, texts, texts, generation=generation),
    st.builds(Changed, texts, texts, generation=generation),
)


def _said(text: str) -> Facts:
    return facts_of(Step("r", "k", "shop.pay", extra=text))


@given(any_facts)
def test_facts_survive_their_text(given):
    """Facts read from their text equal the written ones, by class and by value."""
    read = _said(given.to_json())
    assert type(read) is type(given)
    if isinstance(given, Forked):
        assert [(origin, made) for origin, made in read.draws] == given.draws
    else:
        assert read == given


def test_every_class_is_among_the_generated_ones():
    """The test of all facts covers each class of facts."""
    classes = {cls for cls in vars(facts).values() if isinstance(cls, type) and issubclass(cls, Facts)}
    assert len(classes) == 17
    assert all([one.name for one in fields(cls)[:2]] == ["generation", "begun"] for cls in classes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Facts()),
        ('{"generation": 2}', Facts(generation=2)),
        ('{"until": 1900000000.0}', Sleeping(1.9e9)),
        ('{"deadline": null, "signal": "paid"}', Waiting("paid")),
        ('{"deadline": 17.5, "signal": "paid"}', Waiting("paid", 17.5)),
        ('{"signal": "paid", "sender": "ann"}', Waiting("paid", None, "ann")),
        ('{"next": 17.5, "error": "Timeout: slow"}', Retrying(17.5, "Timeout: slow")),
        ('{"next": 17.5}', Retrying(17.5)),
        ('{"intent": true, "undo": "shop.refund"}', InDoubt(undo="shop.refund")),
        ('{"intent": true, "generation": 1}', InDoubt(generation=1)),
        ('{"undo": "shop.refund"}', Undoable("shop.refund")),
        ('{"memo": true}', FromMemo()),
        ('{"at": 17.5, "step": "shop.remind"}', Scheduled(17.5, "shop.remind")),
        ('{"op": "set", "key": "total"}', Stored("set", "total")),
        ('{"child": "b", "generation": 3}', ChildRun("b", generation=3)),
        ('{"fields": {"kg": 7}}', Logged({"kg": 7})),
        ('{"who": "ann@host:1", "step": "ab12"}', Changed("ann@host:1", "ab12")),
        ('{"who": "a", "of": "r", "before": "k", "draws": [["q", {"": 2}]]}', Forked([["q", {"": 2}]], "a", "r", "k")),
        ('{"odd": NaN}', Facts()),
    ],
)  # fmt: skip
def test_text_of_the_first_release_is_read(text, expected):
    """The text of facts of the first release is still read."""
    assert _said(text) == expected


@pytest.mark.parametrize("text", ["not json", "[1]", "7", '"until"', '{"until": "soon"}', '{"op": "set"}'])
def test_damaged_text_is_an_error_that_names_its_record(text):
    """Damaged text of facts is an error that names the record."""
    with pytest.raises(CorruptPayload, match="shop.pay") as caught:
        _said(text)
    assert (caught.value.run, caught.value.step) == ("r", "k")


def test_generation_of_a_step_without_a_record_is_nought():
    """A step that was never undone has generation 0."""
    assert generation_of(None) == 0
    assert generation_of(Step("r", "k", "p", extra='{"child": "b", "generation": 3}')) == 3

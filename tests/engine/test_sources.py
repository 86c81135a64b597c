"""A step whose source has changed since its result was recorded: noticed, and counted only by ``version=``."""

import logging

import pytest
from support import Crash, Effects, Mortal, python

from flowdsl import Runtime
from flowdsl.core.source import source_digest


def notices(caplog) -> list[str]:
    """What the log says of changed sources."""
    return [r.getMessage() for r in caplog.records if "source has changed" in r.getMessage()]


def edited(flavour, effects, number, **options):
    """The steps and the workflow after *number* edits; the names stay."""
    bodies = {
        1: lambda n: effects("f", n) and 1,
        2: lambda n: effects("f", n) and 2,
        3: lambda n: effects("f", n) and 3,
    }

    @flavour.step(name="edited.same")
    def same(n):
        return n

    f = flavour.step(name="edited.f", **options)(bodies[number])

    @flavour.workflow(name="edited.w", id="w")
    def w():
        found = []
        for n in range(4):
            yield same(n)
            found.append((yield f(n)))
        return found

    return w, f, same


def test_a_changed_step_is_noticed_once_in_a_run_and_its_result_is_kept(
    storage, clock, flavour, effects: Effects, caplog
):
    """A changed step is logged once per run with the hint to ``version=``, and its result is kept."""
    w, *keep = edited(flavour, effects, 1)
    with Runtime(Mortal(storage, 6), clock=clock), pytest.raises(Crash):
        flavour.call(w)
    assert notices(caplog) == []
    w, f, same = edited(flavour, effects, 2)
    with Runtime(storage, clock=clock):
        assert flavour.call(w) == [1, 1, 2, 2]
        assert "changed" in f.explain_key(1)
        assert "changed" not in f.explain_key(3)
        assert "changed" not in same.explain_key(1)
    (text,) = notices(caplog)
    assert "edited.f" in text
    assert "edited.same" not in text
    assert "version=" in text
    del keep


def test_an_unchanged_step_is_not_noticed(storage, clock, flavour, effects: Effects, caplog):
    """Decorating the same source again is no change."""
    w, *keep = edited(flavour, effects, 1)
    with Runtime(Mortal(storage, 6), clock=clock), pytest.raises(Crash):
        flavour.call(w)
    w, *keep = edited(flavour, effects, 1)
    with Runtime(storage, clock=clock):
        assert flavour.call(w) == [1] * 4
    assert notices(caplog) == []
    del keep


def test_the_source_is_no_part_of_the_key(runtime, flavour, effects: Effects):
    """``explain_key`` shows the source as not counted, and a version makes another key."""
    _, old, _ = edited(flavour, effects, 1)
    _, new, _ = edited(flavour, effects, 2)
    _, other, _ = edited(flavour, effects, 2, version=2)
    assert old.key(1) == new.key(1) != other.key(1)
    assert "not counted" in new.explain_key(1)
    assert new.explain_key(1).endswith(new.key(1))


def test_a_shared_result_of_another_source_is_noticed(runtime, flavour, effects: Effects, caplog):
    """A shared result of ``memo=True`` or ``Runtime.do`` from another source is logged and used."""
    for number in (1, 2, 3):
        _, f, _ = edited(flavour, effects, number, memo=True)

        @flavour.workflow(name="edited.memo")
        def w(f=f):
            first = yield f(1)
            return [first, (yield f(2))]

        assert flavour.call(w.options(id=f"w{number}")) == [1, 1]
        assert ("changed" in f.explain_key(1)) is (number > 1)
    assert len(notices(caplog)) == 2
    caplog.clear()
    for number in (1, 2):
        _, f, _ = edited(flavour, effects, number)
        for _ in range(2):
            assert flavour.call(runtime.do, f, 9) == 1
    assert len(notices(caplog)) == 1


def test_explaining_a_key_makes_no_database(tmp_path, monkeypatch):
    """``explain_key`` outside any runtime makes no database."""
    out = python(
        """
        import os
        from flowdsl import step
        @step
        def f(x): return x
        print(f.explain_key(1).splitlines()[-1], os.listdir("."))
        """,
        cwd=tmp_path,
        FLOWDSL_STORAGE="",
    ).stdout
    assert out.endswith("[]\n")


def test_a_digest_is_of_what_a_body_does():
    """A digest ignores comments, docstrings, layout, defaults and lines, and is equal in every process."""

    def f(x, y=1):
        """Text."""
        return {x, "a", "b"} & {1, 2}, [z for z in x if z in {"p", "q", "r"}]

    def g(x, y=2):
        """Other text."""
        # a comment
        return (
            {x, "a", "b"} & {1, 2},
            [z for z in x if z in {"p", "q", "r"}],
        )

    def h(x, y=1):
        return {x, "a", "b"} & {1, 2}, [z for z in x if z in {"p", "q", "s"}]

    assert source_digest(f) == source_digest(g) != source_digest(h)
    code = """
        from flowdsl.core.source import source_digest
        def f(x): return x in {"p", "q", "r", None, 1, (2, b"s", 3.5)}
        print(source_digest(f))
    """
    assert len({python(code, PYTHONHASHSEED=str(seed)).stdout for seed in (1, 2, 3)}) == 1
    assert source_digest(len) == ""


def test_adding_an_optional_parameter_still_hits_and_changing_a_default_misses(
    runtime, flavour, effects: Effects, caplog
):
    """With a new optional parameter a shared result is found, and with a changed default it is not."""
    caplog.set_level(logging.ERROR)

    def signature(fn):
        return flavour.step(name="grown.f", memo=True)(fn)

    def first(x):
        return effects("first")

    def grown(x, scale=1):
        return effects("grown", scale)

    def changed(x, scale=2):
        return effects("changed", scale)

    @flavour.workflow(name="grown.w", ignore=("f",))
    def w(number, f):
        return (yield f(7))

    for number, fn in enumerate((first, grown, grown, changed, changed, grown)):
        flavour.call(w.options(id=f"w{number}"), number, signature(fn))
        flavour.call(runtime.do, signature(fn), 8)
    assert effects.count("first") == 2
    # what the first signature recorded has no such parameter, so any default of it fits
    assert effects.count("grown", 1) == effects.count("changed", 2) == 0
    for number, fn in enumerate((grown, changed, changed, grown)):
        flavour.call(w.options(id=f"v{number}"), number, signature(fn).options(version="2"))
        flavour.call(runtime.do, signature(fn).options(version="2"), 8)
    assert effects.count("changed", 2) == 2
    assert effects.count("grown", 1) == 2
    f = signature(grown).options(version="2")
    f.forget(8)
    flavour.call(runtime.do, f, 8)
    flavour.call(runtime.do, signature(changed).options(version="2"), 8)
    assert effects.count("grown", 1) == effects.count("changed", 2) == 3

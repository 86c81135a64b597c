"""The exception a caller catches: the original, on the first run and on replay."""

import pytest
from support import ONCE, Effects, Flavour

from flowdsl import Retry, Runtime, step, workflow
from flowdsl.errors import FlowError


class Declined(Exception):
    """The classic that breaks pickle: an ``__init__`` of its own."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code
        self.message = message


class KeywordOnly(Exception):
    """Cannot be called with its ``args``."""

    def __init__(self, *, reason):
        super().__init__(f"because {reason}")
        self.reason = reason


class Slotted(Exception):
    """State in slots."""

    __slots__ = ("extra",)

    def __init__(self, extra):
        super().__init__(extra)
        self.extra = extra


class Custom(Exception):
    """Its own ``__str__`` and ``__eq__``."""

    def __init__(self, a, b=2):
        self.a = a
        self.b = b

    def __str__(self):
        return f"custom {self.a} {self.b}"


class Holding(Exception):
    """Holds something that cannot be stored."""

    def __init__(self, message):
        super().__init__(message)
        self.lock = __import__("threading").Lock()


def caught_twice(flavour: Flavour, make):
    """What ``except`` catches first and on replay, with the number of executions."""
    seen, executed = [], []
    stop = [True]

    @flavour.step(retry=ONCE)
    def f():
        executed.append(True)
        raise make()

    @flavour.workflow
    def w():
        try:
            yield f()
        except Exception as error:
            seen.append(error)
        if stop.pop() if stop else False:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flavour.call(w)
    flavour.call(w)
    assert len(executed) == 1
    return seen


@pytest.mark.parametrize("storage", ["memory"], indirect=True)  # all take what a codec made as bytes
@pytest.mark.parametrize(
    "make",
    [
        lambda: ValueError("plain"),
        lambda: KeyError("k"),
        lambda: Declined(7, "no"),
        lambda: KeywordOnly(reason="x"),
        lambda: Slotted(5),
        lambda: Custom(1, b=3),
        lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        lambda: FileNotFoundError(2, "gone", "/x"),
        lambda: ExceptionGroup("many", [ValueError(1), Declined(2, "two")]),
        lambda: Exception(),
        lambda: StopIteration(5),
        lambda: TimeoutError("mine"),
    ],
)
def test_the_original_is_caught_first_and_on_replay(runtime: Runtime, flavour: Flavour, make):
    """A step's exception is caught as its own class, first and on replay."""
    expected = make()
    if isinstance(expected, StopIteration) and flavour.is_async:
        pytest.skip("a coroutine cannot raise StopIteration")
    first, again = caught_twice(flavour, make)
    for error in (first, again):
        assert type(error) is type(expected)
        assert str(error) == str(expected)
        assert error.args == expected.args or isinstance(expected, ExceptionGroup)
        for name in ("code", "reason", "extra", "a", "b", "filename", "errno"):
            assert getattr(error, name, None) == getattr(expected, name, None)


def test_an_except_branch_is_the_same_on_replay(runtime: Runtime, flavour: Flavour, effects: Effects):
    """A replay takes the same ``except`` branch, and so executes the same compensation."""
    stop = [True]

    @flavour.step(retry=ONCE)
    def charge():
        raise Declined(51, "no money")

    @flavour.step
    def tell(code):
        effects("tell", code)

    @flavour.step
    def page(text):
        effects("page", text)

    @flavour.workflow
    def w():
        try:
            yield charge()
        except Declined as error:
            yield tell(error.code)
        except Exception as error:
            yield page(str(error))
        if stop.pop() if stop else False:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flavour.call(w)
    flavour.call(w)
    assert effects == [("tell", 51)]


def test_a_note_names_step_run_and_attempts(runtime: Runtime, flavour: Flavour):
    """The note names step, run and attempts, first and on replay."""

    @flavour.step(retry=Retry(attempts=2))
    def f():
        raise Declined(1, "no")

    @flavour.workflow(id="noted")
    def w():
        yield f()

    with pytest.raises(Declined) as first:
        flavour.call(w)
    with pytest.raises(Declined) as stored:
        runtime.run("noted").result()
    for caught in (first, stored):
        (note,) = [n for n in caught.value.__notes__ if "noted" in n and "attempt" in n]
        assert f.path in note
        assert "2 attempts" in note


def test_the_traceback_leads_to_the_line_that_raised(runtime: Runtime):
    """The traceback shows the line that raised; on the first run it is the real traceback."""
    import traceback

    @step(retry=ONCE)
    def f():
        raise Declined(1, "no")  # the line

    @workflow
    def w():
        f()

    with pytest.raises(Declined) as caught:
        w()
    lines = [frame.line for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert any("# the line" in (line or "") for line in lines)


def test_the_cause_is_kept(runtime: Runtime, flavour: Flavour):
    """The caller sees ``raise … from …`` the same, first and on replay."""

    def make():
        try:
            try:
                raise OSError("socket")
            except OSError as error:
                raise Declined(3, "down") from error
        except Declined as error:
            return error

    first, again = caught_twice(flavour, make)
    for error in (first, again):
        assert isinstance(error.__cause__, OSError)
        assert str(error.__cause__) == "socket"


def test_a_class_local_to_a_function_is_raised_as_itself_in_this_process(
    runtime: Runtime, flavour: Flavour, caplog
):
    """A class local to a function is stored by value, with a warning, and raised as itself in this
    process."""

    class Local(Exception):
        def __init__(self, code):
            super().__init__(f"code {code}")
            self.code = code

    first, again = caught_twice(flavour, lambda: Local(4))
    assert type(first) is Local
    assert type(again) is Local
    assert (first.code, again.code) == (4, 4)
    assert any("Local" in r.getMessage() and r.levelname == "WARNING" for r in caplog.records)


def test_attributes_that_cannot_be_stored_do_not_change_the_type(runtime: Runtime, flavour: Flavour):
    """Attributes that cannot be stored change neither the type nor the message, first and on replay."""
    first, again = caught_twice(flavour, lambda: Holding("held"))
    for error in (first, again):
        assert isinstance(error, Holding)
        assert "held" in str(error)


def test_the_caller_sees_the_loaded_exception_on_the_first_run_too(runtime: Runtime, flavour: Flavour):
    """The caller sees the loaded exception on the first run too, so a replay never shows less."""
    first, again = caught_twice(flavour, lambda: Holding("held"))
    assert hasattr(first, "lock") == hasattr(again, "lock")


def test_the_exception_of_a_step_is_not_chained_to_ours(runtime: Runtime, flavour: Flavour):
    """The context of a step's exception contains no internal exception."""
    first, again = caught_twice(flavour, lambda: Declined(1, "no"))
    for error in (first, again):
        assert error.__cause__ is None
        assert error.__context__ is None


def test_an_error_group_can_be_split(runtime: Runtime):
    """``except*`` works on a replayed group."""
    stop = [True]

    @step(retry=ONCE)
    def f():
        raise ExceptionGroup("both", [Declined(1, "a"), OSError("b")])

    @workflow
    def w():
        found = []
        try:
            f()
        except* Declined as group:
            found.append(group.exceptions[0].code)
        except* OSError as group:
            found.append(str(group.exceptions[0]))
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return found

    with pytest.raises(KeyboardInterrupt):
        w()
    assert w() == [1, "b"]


def test_an_error_of_ours_raised_by_a_body_is_an_ordinary_exception(runtime: Runtime, flavour: Flavour):
    """A ``FlowError`` of another storage that a body raises is an ordinary exception."""
    first, again = caught_twice(flavour, lambda: FlowError("from elsewhere"))
    assert [str(first), str(again)] == ["from elsewhere"] * 2


def test_the_run_raises_the_original(runtime: Runtime, flavour: Flavour):
    """The run raises the original exception to its caller, from its handle, and to a joining call."""

    @flavour.workflow(id="fails")
    def w():
        raise Declined(9, "run")
        yield

    with pytest.raises(Declined) as first:
        flavour.call(w)
    with pytest.raises(Declined) as later:
        runtime.run("fails").result()
    assert (first.value.code, later.value.code) == (9, 9)
    assert runtime.run("fails").exception().code == 9


def test_an_exception_that_cannot_be_stored_at_all(runtime: Runtime, flavour: Flavour):
    """An exception that cannot be stored at all becomes a subclass of its type, or ``StepFailed``."""

    class Cruel(Exception):
        def __init__(self):
            super().__init__("cruel")

        def __reduce__(self):
            raise RuntimeError("no pickling")

        def __getstate__(self):
            raise RuntimeError("no state")

    first, again = caught_twice(flavour, Cruel)
    assert "cruel" in str(first)
    assert type(first).__name__ == type(again).__name__
    assert isinstance(again, Cruel) or isinstance(again, FlowError)

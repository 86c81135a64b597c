"""Exceptions come back as what they were: same type, same text, whatever their class does."""

import copy
import copyreg
import json
import logging
import os
import pickle
import threading
import urllib.error
import warnings

import pytest
import zoo
from hypothesis import given
from hypothesis import strategies as st
from zoo import (
    BOTH,
    CODECS,
    HERE,
    ZOO,
    Declined,
    Drops,
    FromClient,
    Grows,
    NoArgs,
    Slotted,
    Status,
    os_error,
    state,
    text,
    there_and_back,
    unicode_error,
)

from flowdsl.codecs import Codec, JsonCodec, PickleCodec
from flowdsl.codecs.envelope import seal, unseal
from flowdsl.codecs.payloads import Payloads, _context
from flowdsl.errors import MissingClass, ResultNotStorable, StepFailed, StorageError

# ------------------------------------------------------------------------------------------- the zoo


# ---------------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.id)
@pytest.mark.parametrize("error", ZOO, ids=lambda error: type(error).__name__)
def test_comes_back_as_the_same(error, codec):
    """An exception has the same type, text, arguments and attributes on the first run and on every replay."""
    for loaded in there_and_back(error, codec):
        assert type(loaded) is type(error)
        assert text(loaded) == text(error)
        assert loaded is not error
        assert state(loaded) == state(error)
        assert getattr(loaded, "__notes__", None) == getattr(error, "__notes__", None)
        if not isinstance(error, BaseExceptionGroup):
            assert repr(loaded.args) == repr(error.args)


names = st.sampled_from(["code", "detail", "client", "x"])
storable = st.integers() | st.text() | st.tuples(st.binary()) | st.none()
attributes = st.dictionaries(names, storable | st.just(threading.Lock()), max_size=3)
classes = st.sampled_from([Declined, NoArgs, FromClient, ValueError, OSError, KeyError, Grows, Drops])


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.id)
@given(cls=classes, one=storable, two=storable, extra=attributes, notes=st.lists(st.text(), max_size=2))
def test_any_exception_keeps_type_and_text(codec, cls, one, two, extra, notes):
    """The same ``except`` catches any exception twice in a row, and its text is the same."""
    try:
        error = cls(one) if cls is Grows else cls(one, two)
    except TypeError:
        return
    vars(error).update(extra)
    for note in notes:
        error.add_note(note)
    first, again = there_and_back(error, codec)
    twice, _ = there_and_back(again, codec)
    for loaded in (first, again, twice):
        assert isinstance(loaded, type(error))
        assert type(loaded).__qualname__ == type(error).__qualname__
        assert text(loaded) == text(error)
        assert loaded.__notes__[: len(notes)] == notes if notes else True
        kept = {name: value for name, value in extra.items() if not isinstance(value, type(threading.Lock()))}
        assert kept.items() <= vars(loaded).items()


# -------------------------------------------------------------------------------- how they come back


@BOTH
def test_init_is_not_called_again(codec, monkeypatch):
    """An exception is rebuilt without calling its ``__init__``, which would get the wrong arguments from
    pickle."""
    error = Declined(402, "no")
    calls = []
    monkeypatch.setattr(Declined, "__init__", lambda self, *args: calls.append(args))
    payload, _ = Payloads(JsonCodec()).pack_error(error, *HERE)
    loaded = Payloads(JsonCodec()).unpack_error(payload, *HERE)
    assert (calls, loaded.code, loaded.args) == ([], 402, ("402: no",))


def test_except_catches_what_it_caught_before():
    """A replay takes the except branch of the first run."""
    for loaded in there_and_back(Declined(402, "no money"), PickleCodec()):
        try:
            raise loaded
        except TypeError:
            branch = "another"
        except Declined as caught:
            branch = caught.code
        assert branch == 402


def test_os_errors_keep_their_facts():
    """An OSError keeps errno and filename, and gets no second file name."""
    for codec in CODECS:
        for loaded in there_and_back(os_error(), codec):
            assert isinstance(loaded, FileNotFoundError)
            assert (loaded.errno, loaded.filename, loaded.filename2) == (2, "/no/such/file", None)


def test_unicode_errors_keep_their_facts():
    """A UnicodeError keeps its undecodable bytes, with JSON too."""
    for codec in CODECS:
        for loaded in there_and_back(unicode_error(), codec):
            assert (loaded.object, loaded.start, loaded.end) == (b"ab\xff", 2, 3)


def test_slots_are_kept():
    """Slots keep their values, ``None``, and being unset."""
    for codec in CODECS:
        for loaded in there_and_back(Slotted(7), codec):
            assert (loaded.code, loaded.detail) == (7, None)
            assert not hasattr(loaded, "never")


@BOTH
def test_attributes_that_cannot_be_stored_are_left_out(codec):
    """Attributes that cannot be stored are left out, type and text are kept, and a note names what is
    missing."""
    lock = threading.Lock()
    error = FromClient(lock, 7)
    shown = str(error)
    first, again = there_and_back(error, codec)
    for loaded in (first, again):
        assert isinstance(loaded, FromClient)
        assert loaded.code == 7
        assert not hasattr(loaded, "client")
        assert str(loaded) == shown
        assert "could not store .client (<unlocked _thread.lock" in loaded.__notes__[-1]
    twice, _ = there_and_back(again, codec)
    assert isinstance(twice, FromClient)
    assert str(twice) == shown
    assert len(twice.__notes__) == 1


@BOTH
def test_arguments_that_cannot_be_stored_are_shown(codec):
    """An argument that cannot be stored is replaced by an object of the same repr, so the others keep their
    places."""
    lock = threading.Lock()
    error = ValueError("busy", lock, 3)
    first, again = there_and_back(error, codec)
    twice, _ = there_and_back(again, codec)
    for loaded in (first, again, twice):
        assert type(loaded) is ValueError
        assert str(loaded) == str(error)
        assert (loaded.args[0], repr(loaded.args[1]), loaded.args[2]) == ("busy", repr(lock), 3)
        assert len(loaded.__notes__) == 1


def test_json_simplifies_what_it_would_lose():
    """With JSON an enum member in an exception becomes its number, as in any JSON value."""
    error = Declined(Status.GONE, "x")
    assert there_and_back(error, JsonCodec())[1].code == 410
    assert there_and_back(error, PickleCodec())[1].code is Status.GONE


def test_an_error_of_the_standard_library_with_an_open_file():
    """urllib's HTTPError, which holds a socket, keeps code, url and type."""
    error = urllib.error.HTTPError("http://x", 404, "Not Found", {"a": "b"}, open(os.devnull, "rb"))
    with error:
        for codec in CODECS[:2]:
            for loaded in there_and_back(error, codec):
                assert type(loaded) is urllib.error.HTTPError
                assert (loaded.code, loaded.url) == (404, "http://x")
                assert str(loaded) == str(error)


class Final(Exception):
    """Wants no subclasses."""

    def __init__(self, client):
        super().__init__("x")
        self.client = client

    def __str__(self):
        return f"final {self.client}"

    def __init_subclass__(cls, **kwargs):
        raise TypeError("no subclasses, please")


@BOTH
def test_a_class_that_counts_its_subclasses_does_not_see_ours(codec):
    """The class of an exception is not told of the subclass that keeps the text."""
    error = Final(threading.Lock())
    for loaded in there_and_back(error, codec):
        assert isinstance(loaded, Final)
        assert str(loaded) == str(error)
    assert Final.__subclasses__() == [] or all(sub.__name__ == "Final" for sub in Final.__subclasses__())


class Sealed(type):
    """A metaclass that allows one class only."""

    def __new__(mcs, name, bases, namespace):
        if any(isinstance(base, Sealed) for base in bases):
            raise TypeError("sealed")
        return super().__new__(mcs, name, bases, namespace)


class SealedError(Exception, metaclass=Sealed):
    """Cannot be subclassed at all."""

    def __init__(self, client):
        super().__init__("x")
        self.client = client

    def __str__(self):
        return f"sealed {self.client}"


@BOTH
def test_where_text_and_type_cannot_both_be_kept_the_type_is(codec):
    """If text and type cannot both be kept, the type is kept."""
    for loaded in there_and_back(SealedError(threading.Lock()), codec):
        assert type(loaded) is SealedError


def test_an_exception_with_a_stored_text_can_be_pickled_and_copied():
    """A loaded exception with a stored text can be pickled and copied."""
    error = FromClient(threading.Lock(), 7)
    loaded, _ = there_and_back(error, PickleCodec())
    for other in (pickle.loads(pickle.dumps(loaded)), copy.copy(loaded)):
        assert isinstance(other, FromClient)
        assert (str(other), other.code, other.args) == (str(error), 7, error.args)


# ------------------------------------------------------------------------ chains, groups, tracebacks


def chained():
    """Return an exception raised from another one, which was raised while a third was handled."""
    try:
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise Declined(1, "second")
        except Declined as cause:
            raise RuntimeError("third") from cause
    except RuntimeError as error:
        return error


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.id)
def test_causes_are_kept(codec):
    """Causes and contexts come back with their types, at any depth."""
    for loaded in there_and_back(chained(), codec):
        assert type(loaded.__cause__) is Declined
        assert loaded.__cause__.code == 1
        assert type(loaded.__cause__.__context__) is KeyError
        assert loaded.__suppress_context__
        assert not loaded.__cause__.__suppress_context__


def test_a_suppressed_context_stays_suppressed():
    """A context that ``from None`` hides is not stored."""
    try:
        try:
            raise KeyError("hidden")
        except KeyError:
            raise ValueError("shown") from None
    except ValueError as error:
        for loaded in there_and_back(error, PickleCodec()):
            assert loaded.__context__ is None
            assert loaded.__suppress_context__


def test_chains_end():
    """A chain with a cycle and a very long chain are cut."""
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert there_and_back(one, PickleCodec())[1].__cause__.__cause__ is None
    long = ValueError(0)
    for number in range(5000):
        outer = ValueError(number)
        outer.__context__, long = long, outer
    depth, loaded = 0, there_and_back(long, JsonCodec())[1]
    while loaded is not None:
        depth, loaded = depth + 1, loaded.__context__
    assert 3 < depth < 100
    while long is not None:  # or its end would exhaust the stack of the interpreter
        long = long.__context__


def test_a_cause_that_is_gone_does_not_hide_the_error(monkeypatch):
    """A cause whose class is gone is replaced by text, and does not hide the exception."""
    payload, _ = Payloads(PickleCodec()).pack_error(chained(), *HERE)
    monkeypatch.delattr(zoo, "Declined")
    loaded = Payloads(PickleCodec()).unpack_error(payload, *HERE)
    assert type(loaded) is RuntimeError
    assert isinstance(loaded.__cause__, StepFailed)
    assert "Declined" in str(loaded.__cause__)


@BOTH
def test_groups_are_split_as_before(codec):
    """``except*`` splits a loaded group as it split the original."""
    group = ExceptionGroup("g", [Declined(1, "a"), KeyError("b"), ValueError(threading.Lock())])
    for loaded in there_and_back(group, codec):
        declined, rest = loaded.split(Declined)
        assert [error.code for error in declined.exceptions] == [1]
        assert [type(error) for error in rest.exceptions] == [KeyError, ValueError]


def test_a_member_that_cannot_be_stored_is_replaced():
    """A group keeps its other members if one of them has to become StepFailed."""

    class Local(Exception):
        """Not found by name, so JSON cannot store it."""

    group = BaseExceptionGroup("g", [Local("x"), KeyError("k")])
    loaded = there_and_back(group, JsonCodec())[1]
    assert [type(error) for error in loaded.exceptions] == [StepFailed, KeyError]
    assert loaded.exceptions[0].type_name.endswith("Local")


def fails_here():
    """Raise something."""
    raise Declined(1, "x")


def test_the_traceback_is_kept_as_text():
    """A loaded exception has the original traceback as text, once."""
    try:
        fails_here()
    except Declined as error:
        original = error.__traceback__
        first, again = there_and_back(error, PickleCodec())
    assert first.__traceback__ is original
    assert again.__traceback__ is None
    for loaded in (first, again):
        assert "in fails_here" in loaded.__flow_traceback__
        assert "__flow_traceback__" not in "".join(getattr(loaded, "__notes__", []))


def test_the_traceback_survives_a_second_storing():
    """A step's exception that fails the run still shows where the step failed."""
    try:
        fails_here()
    except Declined as error:
        _, again = there_and_back(error, JsonCodec())
    try:
        raise again
    except Declined as error:
        _, twice = there_and_back(error, JsonCodec())
    assert "in fails_here" in twice.__flow_traceback__
    assert "raised again" in twice.__flow_traceback__


def test_the_traceback_is_bounded():
    """A traceback of megabytes is cut in the middle."""
    _, seen = Payloads(PickleCodec()).pack_error(ValueError("x" * 1_000_000), *HERE)
    assert len(seen.__flow_traceback__) < 50_000
    assert seen.args == ("x" * 1_000_000,)


# ---------------------------------------------------------------------------- classes without a name


def test_a_local_class_comes_back_as_itself():
    """A local class comes back as itself in this process, with a warning that other processes will not know
    it."""
    seen = []

    class Local(Exception):
        """Has a method that closes over something."""

        def remember(self):
            seen.append(self.args)

    with pytest.warns(RuntimeWarning, match="Local cannot be found by name"):
        loaded = there_and_back(Local("x"), PickleCodec())
    for one in loaded:
        try:
            raise one
        except Local as caught:
            caught.remember()
    assert seen == [("x",), ("x",)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        there_and_back(Local("again"), PickleCodec())


def test_a_local_class_with_an_init_of_its_own():
    """A local class with its own ``__init__`` comes back as itself."""

    class Local(Exception):
        """Wants two arguments."""

        def __init__(self, code, message):
            super().__init__(message)
            self.code = code

    with pytest.warns(RuntimeWarning):
        both = there_and_back(Local(3, "x"), PickleCodec())
    for loaded in both:
        assert type(loaded) is Local
        assert (loaded.code, str(loaded)) == (3, "x")


def test_a_warning_that_is_an_error_replaces_nothing(caplog):
    """If warnings are errors, the exception is stored nevertheless, and the text of the warning is logged."""

    class Local(Exception):
        """Not found by name."""

    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, logger="flowdsl"):
        warnings.simplefilter("error")
        assert isinstance(there_and_back(Local("x"), PickleCodec())[0], Local)
    assert "cannot be found by name" in caplog.text


def test_json_cannot_store_a_class_without_a_name():
    """With JSON an exception of a class without a name becomes StepFailed, with its name, text and
    traceback."""

    class Local(Exception):
        """Not found by name."""

    for loaded in there_and_back(Local("why"), JsonCodec()):
        assert type(loaded) is StepFailed
        assert loaded.type_name == f"{__name__}.{Local.__qualname__}"
        assert str(loaded) == f"{loaded.type_name}: why"
        assert "why" in loaded.__flow_traceback__


class Impossible(Exception):
    """Can be neither pickled nor taken apart."""

    def __reduce_ex__(self, protocol):
        raise TypeError("no pickling")

    @property
    def __dict__(self):
        raise TypeError("no attributes")


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.id)
def test_what_cannot_be_stored_at_all_is_told(codec):
    """Storing an exception never raises because of the exception."""
    for loaded in there_and_back(Impossible("why"), codec):
        assert isinstance(loaded, StepFailed | Impossible)
        assert "why" in str(loaded)


# -------------------------------------------------------------------------------- what does not load


@BOTH
def test_a_class_that_is_gone_is_named(codec, monkeypatch):
    """An exception whose class was removed raises MissingClass, so that no other except branch runs."""
    payload, _ = Payloads(codec).pack_error(Declined(1, "x"), *HERE)
    monkeypatch.delattr(zoo, "Declined")
    with pytest.raises(MissingClass) as caught:
        Payloads(codec).unpack_error(payload, *HERE)
    assert (caught.value.module, caught.value.name) == ("zoo", "Declined")
    assert caught.value.run == "run-1"


def forged(class_names):
    """Return a JSON payload that names a class of somebody's choice."""
    payload, _ = Payloads(JsonCodec()).pack_error(Declined(1, "x"), *HERE)
    codec_id, body = unseal(payload, _context(*HERE))
    record = json.loads(body)
    record["class"] = class_names
    return seal(codec_id, json.dumps(record).encode(), _context(*HERE))


@pytest.mark.parametrize(
    "names",
    [
        ["os", "system"],
        ["subprocess", "Popen"],
        ["builtins", "eval"],
        ["os", "path.join"],
        ["asyncio", "exceptions.TimeoutError"],
        ["zoo", "Outer"],
    ],
)
def test_json_looks_up_nothing_but_exception_classes(names):
    """A payload made by hand cannot name a function or a class that is no exception."""
    with pytest.raises(StorageError, match="no exception class"):
        Payloads(JsonCodec()).unpack_error(forged(names), *HERE)


@pytest.mark.parametrize("names", [["no_such_module", "X"], ["os", "no_such"], ["zoo", "Outer.no_such"]])
def test_json_names_that_lead_nowhere(names):
    """JSON that names a missing class raises MissingClass with the names."""
    with pytest.raises(MissingClass) as caught:
        Payloads(JsonCodec()).unpack_error(forged(names), *HERE)
    assert caught.value.module == names[0]


@pytest.mark.parametrize("names", [None, [], ["os"], 7, ["os", 7], [1, "x"], ["zoo", ""], ["", "x"]])
def test_json_that_is_no_record_at_all(names):
    """JSON that is no record of an exception raises StorageError."""
    with pytest.raises(StorageError):
        Payloads(JsonCodec()).unpack_error(forged(names), *HERE)


def test_json_errors_are_readable():
    """The JSON of an exception is readable."""
    payload, _ = Payloads(JsonCodec()).pack_error(Declined(402, "no"), *HERE)
    record = json.loads(unseal(payload, _context(*HERE))[1])
    assert record["class"] == ["zoo", "Declined"]
    assert record["args"] == ["402: no"]
    assert record["attributes"] == {"code": 402}


def test_exceptions_outlive_a_change_of_codec():
    """Exceptions that an older codec stored still load after a change of codec."""
    payload, _ = Payloads(JsonCodec()).pack_error(Declined(1, "x"), *HERE)
    assert isinstance(Payloads(PickleCodec()).unpack_error(payload, *HERE), Declined)


def test_a_codec_that_cannot_store_a_dict():
    """A codec that cannot store a dict raises its own error, apart from the exception's."""

    class Texts(Codec):
        id = "texts"

        def dumps(self, value):
            return value.encode()

        def loads(self, data):
            return data.decode()

    with pytest.raises(ResultNotStorable, match="codec 'texts' cannot store the record of an exception"):
        Payloads(Texts()).pack_error(ValueError("x"), *HERE)


def test_what_another_library_does_to_pickle_is_not_stored(monkeypatch):
    """Exceptions are stored without tblib, which Dask activates and a reader would need."""
    tblib = pytest.importorskip("tblib.pickling_support")
    monkeypatch.setitem(copyreg.dispatch_table, ValueError, tblib.pickle_exception)
    try:
        raise ValueError("shown") from None
    except ValueError as error:
        payload, loaded = Payloads(PickleCodec()).pack_error(error, *HERE)
        assert b"tblib" not in payload + PickleCodec().dumps([error])
        assert type(loaded) is ValueError

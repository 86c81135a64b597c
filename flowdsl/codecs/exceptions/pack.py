"""Exceptions to bytes and back, with the same type: ``except CardDeclined`` works in a replay too.

An exception is stored as a *record*: a dict of plain values and *pieces*
(:mod:`flowdsl.codecs.exceptions.pieces`). A piece is one object. If one piece cannot be stored, the others
still can.

There are three ways to store an exception. Each is tried in turn, and checked by loading it again at once:

* ``whole``: as one piece. This is right if type, text, arguments and attributes are the same again. An
  exception class with its own ``__init__(code, message)`` fails here, because pickle calls it with ``args``.
* ``parts``: class, ``args`` and attributes, put together without calling ``__init__``. If the text differs
  then (for example because it was made from an attribute that cannot be stored), the type is a subclass with
  another ``__str__``.
* ``text``: the name of its type, and its text. It comes back as ``StepFailed``.

Exception groups are stored in parts, each member as a record of its own, and so is the chain of causes.
"""

import logging
import traceback
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any
from weakref import WeakSet

from flowdsl.codecs.base import Codec
from flowdsl.codecs.exceptions.codec import ErrorCodec, for_values
from flowdsl.codecs.exceptions.handling import (
    args_of,
    cause_of,
    context_of,
    dict_of,
    exceptions_of,
    set_cause,
    set_context,
    set_traceback,
    suppresses_context,
    text_of,
    traceback_of,
)
from flowdsl.codecs.exceptions.pieces import NotStored, ObjectPieces, Pieces, pieces_for
from flowdsl.codecs.exceptions.rebuild import (
    TEXT,
    TRACE,
    attributes_of,
    members_of,
    original_type,
    put_together,
    same_exception,
)
from flowdsl.codecs.modules import found_by_name
from flowdsl.errors import CorruptPayload, StepFailed, StorageError

__all__ = ["pack_exception", "unpack_exception", "unwrap_pieces"]

Record = dict[str, Any]
INNERMOST = "innermost"
"""In a record, this says that the innermost codec made the pieces, and that only the whole record is signed
or encrypted."""

_logger = logging.getLogger("flowdsl")

_MAX_CHAIN = 10
_MAX_REPR = 200
_MAX_TRACE = 40_000  # characters
_FRAMES = 60  # of a traceback that was not stored before: the innermost frames
_FRAMES_AGAIN = 10  # of a loaded exception: the outermost frames; the others are in the stored text
_warned: WeakSet[type] = WeakSet()


def pack_exception(error: BaseException, codec: Codec) -> tuple[bytes, BaseException]:
    """Return *error* as bytes, and the exception that :func:`unpack_exception` will make from them.

    *codec* has the mark of exceptions, see :mod:`flowdsl.codecs.exceptions.codec`. If *codec* cannot store
    even a dict of strings, its exception is raised.
    """
    pieces = pieces_for(codec.innermost)
    trace = _trace(error)
    try:
        record = {**_record(error, pieces, set()), "trace": trace, INNERMOST: True}
        body = codec.dumps(record)
        loaded = unpack_exception(body, codec)
    except Exception as problem:  # whatever the user's classes raise
        _logger.debug("%s is stored as text only: %s", type(error).__qualname__, text_of(problem))
        record = _text_record(error)
        try:
            body = codec.dumps({**record, "trace": trace})
        except Exception:  # a codec with a limit
            body = codec.dumps({**record, "message": record["message"][:_MAX_REPR], "trace": ""})
        loaded = unpack_exception(body, codec)
    try:
        _carry_tracebacks(error, loaded)
        _warn_of_local_class(error, loaded)
    except Exception:  # a metaclass can make even a class fail
        _logger.debug("%s is stored; no more is known of its class", text_of(loaded))
    return body, loaded


def unpack_exception(body: bytes, codec: Codec) -> BaseException:
    """Return the exception stored in *body*. Raises ``MissingClass`` or another ``StorageError``."""
    try:
        record = codec.loads(body)
        # In a record of an earlier release, each piece is wrapped too.
        error = _load(record, pieces_for(codec.innermost if INNERMOST in record else for_values(codec)))
        dict_of(error)[TRACE] = record["trace"]
    except StorageError:
        raise
    except Exception as problem:  # whatever the user's classes raise
        raise StorageError(
            f"a stored exception does not load: {type(problem).__name__}: {problem}"
        ) from problem
    return error


def unwrap_pieces(body: bytes, codec: Codec) -> bytes:
    """Return the record of an exception, with pieces as :func:`pack_exception` makes them now.

    *codec* made *body*, which was unwrapped already. Earlier releases wrapped each piece too. No object is
    loaded: the record is plain, and its pieces stay as they are. Raises ``StorageError`` for anything else.
    """
    innermost = ErrorCodec(codec.innermost)
    record = innermost.loads(body)
    if not isinstance(record, dict):
        raise CorruptPayload("the payload is marked as an exception, but holds no record of one")
    if INNERMOST in record:
        return body
    wrapped = for_values(codec)

    def bare(part: Any) -> Any:
        if isinstance(part, bytes):  # in such a record only pieces are bytes
            return wrapped.strip(part)[1]
        if isinstance(part, dict):
            return {name: bare(inner) for name, inner in part.items()}
        return [bare(inner) for inner in part] if isinstance(part, list) else part

    return innermost.dumps({**bare(record), INNERMOST: True})


# ---------------------------------------------------------------------------------------------------- storing


def _record(error: BaseException, pieces: Pieces, above: set[int]) -> Record:
    """Return the record of *error*, with its members and causes. *above*: ids of the exceptions that contain
    this one."""
    above = above | {id(error)}
    record = next(filter(None, _attempts(error, pieces, above)))
    cause, context = cause_of(error), context_of(error)
    if cause is None and suppresses_context(error):
        context = None
    for name, other in (("cause", cause), ("context", context if cause is None else None)):
        if other is not None and id(other) not in above and len(above) < _MAX_CHAIN:
            record[name] = _record(other, pieces, above)
    if suppresses_context(error):
        record["suppress"] = True
    return record


def _attempts(error: BaseException, pieces: Pieces, above: set[int]) -> Iterator[Record | None]:
    if isinstance(error, BaseExceptionGroup):
        members = [_record(member, pieces, above) for member in exceptions_of(error)]
        yield _parts(error, pieces, members)
    else:
        if isinstance(pieces, ObjectPieces) and TEXT not in dict_of(error):
            yield _whole(error, pieces)
        yield _parts(error, pieces, None)
    yield _text_record(error)


def _whole(error: BaseException, pieces: ObjectPieces) -> Record | None:
    try:
        piece = pieces.put(error)
        if not same_exception(error, pieces.get(piece)):
            return None
    except Exception:  # whatever the user's classes raise
        return None
    return {"how": "whole", "whole": piece}


def _parts(error: BaseException, pieces: Pieces, members: list[Record] | None) -> Record | None:
    """Store the parts of *error* that can be stored; ``None`` if it cannot be put together from them."""
    lost: list[str] = []
    record: Record = {"how": "parts"}
    try:
        record["class"] = pieces.put_class(original_type(error))
        if members is None:
            record["args"] = [_argument(i, value, pieces, lost) for i, value in enumerate(args_of(error))]
        else:
            record["message"], record["group"] = pieces.put(error.message), members  # type: ignore[attr-defined]
        record["attributes"] = _named(attributes_of(error), pieces, lost)
        record["members"] = _named(members_of(error), pieces, lost)
        record["lost"] = lost
        text = text_of(error)
        if text_of(_put_together(record, pieces)) != text:
            record["text"] = pieces.put(text)
            if not _goes_together(record, pieces):  # its class forbids subclasses: the text is lost
                del record["text"]
    except Exception:  # whatever the user's classes raise
        return None
    return record


def _goes_together(record: Record, pieces: Pieces) -> bool:
    try:
        _put_together(record, pieces)
    except Exception:  # whatever the user's classes raise
        return False
    return True


def _argument(index: int, value: Any, pieces: Pieces, lost: list[str]) -> Any:
    piece = _piece(value, pieces)
    if piece is None:
        shown = _shown(value)
        lost.append(f"args[{index}] ({shown})")
        return pieces.put(NotStored(shown))
    return piece[0]


def _named(values: dict[str, Any], pieces: Pieces, lost: list[str]) -> dict[str, Any]:
    found = {}
    for name, value in values.items():
        piece = _piece(value, pieces)
        if piece is None:
            lost.append(f".{name} ({_shown(value)})")
        else:
            found[name] = piece[0]
    return found


def _piece(value: Any, pieces: Pieces) -> tuple[Any] | None:
    """Return the piece for *value* (in a tuple), or ``None`` if it cannot be stored and loaded again."""
    try:
        piece = pieces.put(value)
        pieces.get(piece)
    except Exception:  # whatever the user's classes raise
        return None
    return (piece,)


def _text_record(error: BaseException) -> Record:
    cls = original_type(error)
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    return {"how": "text", "type": _plain(name), "message": _plain(text_of(error))}


def _plain(text: str) -> str:
    """Return *text* without characters that UTF-8 cannot encode."""
    return text.encode("utf-8", "backslashreplace").decode()


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # whatever the user's __repr__ raises
        text = f"<{type(value).__qualname__} object>"
    return _plain(text if len(text) <= _MAX_REPR else text[: _MAX_REPR - 1] + "…")


def _trace(error: BaseException) -> str:
    """Return the traceback as text. If the exception was loaded, the stored traceback comes before it.

    Python needs much time for each line, and an exception that leaves nested steps passes here at each step.
    """
    earlier = dict_of(error).get(TRACE)
    frames, limit = traceback_of(error), _FRAMES_AGAIN
    if not isinstance(earlier, str):
        frames, limit = _innermost(frames), _FRAMES
    try:
        text = "".join(traceback.format_exception(type(error), error, frames, limit=limit))
    except Exception:  # it may call the user's __str__
        text = f"{type(error).__qualname__}: {text_of(error)}\n"
    if isinstance(earlier, str):
        text = f"{earlier}\nIt was raised again from storage:\n\n{text}"
    if len(text) > _MAX_TRACE:
        text = f"{text[: _MAX_TRACE // 2]}\n  […]\n{text[-_MAX_TRACE // 2 :]}"
    return _plain(text)


def _innermost(frames: TracebackType | None) -> TracebackType | None:
    """The last ``_FRAMES`` of the traceback."""
    last = frames
    for _ in range(_FRAMES):
        if last is None:
            return frames
        last = last.tb_next
    while frames is not None and last is not None:
        frames, last = frames.tb_next, last.tb_next
    return frames


# ---------------------------------------------------------------------------------------------------- loading


def _load(record: Record, pieces: Pieces) -> BaseException:
    match record["how"]:
        case "whole":
            error = pieces.get(record["whole"])
        case "parts":
            error = _put_together(record, pieces)
        case _:
            error = StepFailed(f"{record['type']}: {record['message']}", type_name=record["type"])
    if not isinstance(error, BaseException):
        raise StorageError(f"a stored exception loads as {type(error).__qualname__}, which is no exception")
    suppress = record.get("suppress", False)
    set_cause(error, _load_other(record["cause"], pieces) if "cause" in record else None, suppress=suppress)
    if "context" in record:
        set_context(error, _load_other(record["context"], pieces))
    return error


def _load_other(record: Record, pieces: Pieces) -> BaseException:
    """Load a cause. It is only shown, so a cause that cannot be loaded must not hide the exception."""
    try:
        return _load(record, pieces)
    except Exception as problem:  # whatever the user's classes raise
        return StepFailed(f"the stored cause does not load: {problem}")


def _put_together(record: Record, pieces: Pieces) -> BaseException:
    if "group" in record:
        args = (pieces.get(record["message"]), [_load(member, pieces) for member in record["group"]])
    else:
        args = tuple(pieces.get(piece) for piece in record["args"])
    text = pieces.get(record["text"]) if "text" in record else None
    attributes, members = (
        {name: pieces.get(piece) for name, piece in record[of].items()} for of in ("attributes", "members")
    )
    error = put_together(pieces.get_class(record["class"]), args, attributes, members, text)
    if record["lost"]:
        # add_note() would read the attribute, and so call the __getattr__ of a class whose parts are missing.
        notes = dict_of(error).setdefault("__notes__", [])
        if isinstance(notes, list):
            notes.append(f"flowdsl could not store {', '.join(record['lost'])} with this exception")
    return error


# ---------------------------------------------------------------------------------------- the first time only


def _carry_tracebacks(error: BaseException | None, loaded: BaseException | None) -> None:
    """Give the loaded exception and its causes the tracebacks of the originals."""
    for _ in range(_MAX_CHAIN):
        if error is None or loaded is None:
            return
        set_traceback(loaded, traceback_of(error))
        for one, other in zip(exceptions_of(error), exceptions_of(loaded), strict=False):
            _carry_tracebacks(one, other)
        error, loaded = _behind(error), _behind(loaded)


def _behind(error: BaseException) -> BaseException | None:
    cause = cause_of(error)
    return context_of(error) if cause is None else cause


def _warn_of_local_class(error: BaseException, loaded: BaseException) -> None:
    """Warn once per class that other processes will see another class of that name."""
    cls = original_type(error)
    if isinstance(loaded, StepFailed) and not issubclass(cls, StepFailed):
        return
    if found_by_name(cls) or cls in _warned:
        return
    _warned.add(cls)
    message = (
        f"exception class {cls.__module__}.{cls.__qualname__} cannot be found by name, so it was stored by "
        "value: in another process 'except' will not catch it. Define it at the top level of a module"
    )
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    except RuntimeWarning:  # where warnings are errors; this must not replace the step's own exception
        _logger.warning(message)

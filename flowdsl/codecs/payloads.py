"""Values and exceptions to sealed payloads and back. The engine uses codecs only through this module.

A packed value is loaded again at once, and the caller gets the loaded value. So the first run sees what a
replay sees (for example a list where JSON had a tuple). A value that does not load raises an error at once,
and not weeks later.

A payload is sealed for one context: run id, key and kind. See :mod:`flowdsl.codecs.envelope`.
"""

import logging
from typing import Any

from flowdsl.codecs.base import Codec
from flowdsl.codecs.envelope import opener, seal, sealer, unseal
from flowdsl.codecs.exceptions.codec import ERROR, ErrorCodec, for_errors, marks_error
from flowdsl.codecs.exceptions.pack import pack_exception, unpack_exception, unwrap_pieces
from flowdsl.codecs.keyed import is_keyed
from flowdsl.codecs.previews import Previews
from flowdsl.codecs.stack import on_fresh_stack, ran_out, with_enough_stack
from flowdsl.codecs.unstorable import describe_fault
from flowdsl.errors import ResultNotStorable, StepFailed, StorageError

__all__ = ["Payloads"]

_logger = logging.getLogger("flowdsl")

Context = tuple[str, str, str]
"""Run id, key and kind."""


class Payloads:
    """Packs and unpacks for one runtime.

    * *codec*: makes the bodies of new payloads. Payloads of other built-in codecs stay readable.
    * *secret*: key of the checksums; ``None`` for plain ones.
    * *check_limit*: bytes. A larger packed value is not loaded again; the log says so.
    * *previews*: whether readable previews are made. With a codec that hides values there are none in any
      case.

    ``previews`` makes them; see :class:`~flowdsl.codecs.previews.Previews`.

    Raises ``ValueError`` for an impossible codec id or an empty secret.

    >>> from flowdsl.codecs import JsonCodec
    >>> payloads = Payloads(JsonCodec())
    >>> payload, seen = payloads.pack((1, 2), "run-1", "ab12", "step")
    >>> seen
    [1, 2]
    >>> payloads.unpack(payload, "run-1", "ab12", "step")
    [1, 2]
    """

    __slots__ = (
        "_codec",
        "_codec_id",
        "_dumps",
        "_errors",
        "_exact",
        "_limit",
        "_loads",
        "_open",
        "_seal",
        "_seal_error",
        "_secret",
        "previews",
    )

    def __init__(
        self,
        codec: Codec,
        secret: bytes | None = None,
        check_limit: int = 16 * 1024 * 1024,
        *,
        previews: bool = True,
    ) -> None:
        if marks_error(codec.id):
            raise ValueError(f"a codec id may not contain '{ERROR}+': {codec.id!r}")
        # Both raise at once for an impossible id or an empty secret.
        self._seal = sealer(codec.id, secret)
        self._errors = for_errors(codec)
        self._seal_error = sealer(self._errors.id, secret)
        self._open = opener(codec.id, secret)
        self._codec = codec
        self._codec_id = codec.id
        self._dumps = codec.dumps
        self._loads = codec.loads
        self._exact = codec.exact
        self._secret = secret
        self._limit = check_limit
        self.previews = Previews(previews and not codec.hides)

    @property
    def codec(self) -> Codec:
        """The codec of new payloads."""
        return self._codec

    @property
    def hides(self) -> bool:
        """Whether nobody without a key can read the payloads."""
        return self._codec.hides

    def pack(self, value: Any, run_id: str, key: str, kind: str) -> tuple[bytes, Any]:
        """Return *value* as a payload for this context, and the value as it will be loaded.

        Raises ``ResultNotStorable`` if it cannot be stored or does not load again. Its ``where`` names the
        part at fault.
        """
        try:
            body = self._dumps(value)
            if type(value) not in self._exact:
                if len(body) <= self._limit:
                    value = self._loads(body)
                else:
                    _logger.info(
                        "%s of run %s has %d bytes, more than %d: stored without loading it again as a check",
                        *(kind, run_id, len(body), self._limit),
                    )
        except Exception as error:  # whatever a codec raises
            body, value = self._with_enough_stack(value, error, run_id, key, kind)
        return self._seal(body, _context(run_id, key, kind)), value

    def pack_arguments(self, arguments: dict[str, Any], key: str) -> bytes:
        """Return the *arguments* of run *key* as a payload. Nobody gets them back as they will be loaded, so
        values that load as they are need no check. Raises like :meth:`pack`."""
        if self._exact.issuperset(map(type, arguments.values())):
            try:
                return self._seal(self._dumps(arguments), _context(key, "", "args"))
            except Exception:  # whatever a codec raises: said below
                pass
        return self.pack(arguments, key, "", "args")[0]

    def _with_enough_stack(
        self, value: Any, error: Exception, run_id: str, key: str, kind: str
    ) -> tuple[bytes, Any]:
        """If *error* says that the stack is used up, try again on a fresh stack. Otherwise say what is
        wrong."""

        def again() -> tuple[bytes, Any]:
            body = self._dumps(value)
            return body, self._loads(body) if len(body) <= self._limit else value

        try:
            if ran_out(error):
                return on_fresh_stack(again)
        except Exception as second:  # whatever a codec raises
            error = second
        raise self._not_storable(value, error, run_id, key, kind) from error

    def unpack(self, payload: bytes, run_id: str, key: str, kind: str, named: str = "") -> Any:
        """Return the value that *payload* holds for this context. Errors name the run *named*, if it is not
        *run_id*.

        Raises ``CorruptPayload`` if it is not what was stored here, ``MissingClass`` if a class is gone, and
        ``StorageError`` if it does not load for another reason, or its codec is unknown.
        """
        context = _context(run_id, key, kind)
        body = self._open(payload, context)
        try:
            if body is not None:
                return self._loads(body)
            codec_id, body = unseal(payload, context, self._secret)
            return self._reader(codec_id).loads(body)
        except StorageError as error:
            _locate(error, named or run_id, key)
            raise
        except Exception as error:  # whatever a codec raises
            raise StorageError(
                f"the {kind} payload of run {named or run_id} does not load: {type(error).__name__}: {error}",
                run=named or run_id,
                key=key,
            ) from error

    def pack_error(
        self, error: BaseException, run_id: str, key: str, kind: str
    ) -> tuple[bytes, BaseException]:
        """Return an exception as a payload for this context, and the exception as it will be loaded.

        The loaded exception has the same type, or a subclass that differs only in ``str()``. If it cannot be
        stored at all, it is a ``StepFailed``. It keeps the original's ``__traceback__``. An exception that is
        loaded later has the text of the traceback in ``__flow_traceback__``. Attributes that cannot be stored
        are left out, and a note names them.

        It raises nothing itself, however odd the exception is. Only if the codec breaks its contract, and
        cannot store a dict of strings, it raises ``ResultNotStorable``.
        """
        try:
            body, loaded = with_enough_stack(lambda: pack_exception(error, self._errors))
            if isinstance(loaded, StepFailed) and not isinstance(error, StepFailed):
                # All better ways may have failed because the stack was used up.
                body, loaded = on_fresh_stack(lambda: pack_exception(error, self._errors))
        except RecursionError:  # too little stack even to start another thread; the caller has more
            raise
        except Exception as problem:  # whatever a codec raises
            raise ResultNotStorable(
                f"codec {self._codec_id!r} cannot store the record of an exception, a dict of strings "
                f"({_reason(problem)}); every codec must",
                run=run_id,
                key=key,
            ) from problem
        return self._seal_error(body, _context(run_id, key, kind)), loaded

    def unpack_error(self, payload: bytes, run_id: str, key: str, kind: str) -> BaseException:
        """Return the exception that *payload* holds for this context. Raises like :meth:`unpack`."""
        try:
            codec_id, body = unseal(payload, _context(run_id, key, kind), self._secret)
            return unpack_exception(body, self._error_reader(codec_id))
        except StorageError as error:
            _locate(error, run_id, key)
            raise

    def _reader(self, codec_id: str) -> Codec:
        """The codec that loads a value of *codec_id*. A secret has proved the id, if there is one."""
        if marks_error(codec_id):
            raise StorageError("the payload holds an exception, not a value")
        codec = self._codec
        return codec.reader(codec_id) if self._secret is None else codec.proven_reader(codec_id)

    def _error_reader(self, codec_id: str) -> Codec:
        """The codec that loads an exception of *codec_id*."""
        if not marks_error(codec_id):
            raise StorageError("the payload holds a value, not an exception")
        outside = f"{ERROR}+"
        if codec_id.startswith(outside) and (self._secret is not None or not is_keyed(self._codec)):
            # Earlier releases put the mark outside the signature. The keyed checksum covers it here.
            return ErrorCodec(self._reader(codec_id.removeprefix(outside)))
        return self._errors.reader(codec_id) if self._secret is None else self._errors.proven_reader(codec_id)

    @property
    def secret(self) -> bytes | None:
        """The key of the checksums; ``None`` if they are plain."""
        return self._secret

    def reseal(self, payload: bytes, old: Context, new: Context) -> bytes:
        """Check *payload* for the *old* context and seal it for the *new* one; nothing is loaded.

        A context is run id, key and kind. Raises ``CorruptPayload`` like :meth:`unpack`.
        """
        try:
            codec_id, body = unseal(payload, _context(*old), self._secret)
        except StorageError as error:
            _locate(error, *old[:2])
            raise
        return seal(codec_id, body, _context(*new), self._secret)

    def rekey(self, payload: bytes, run_id: str, key: str, kind: str, old: "Payloads") -> bytes | None:
        """Return *payload*, which *old* wrote for this context, as these payloads would write it. Nothing is
        loaded.

        Returns ``None`` if it is already written so. Raises ``CorruptPayload`` like :meth:`unpack`, and
        ``StorageError`` if neither has its key.
        """
        context = _context(run_id, key, kind)
        try:
            if self._is_current(payload, context):
                return None
            codec_id, body = unseal(payload, context, old._secret)
            if marks_error(codec_id):
                writer = old._error_reader(codec_id)
                bare_id, body = writer.strip(body)
                codec_id, body = self._errors.wrap_again(bare_id, unwrap_pieces(body, writer))
            else:
                codec_id, body = self._codec.wrap_again(*old._reader(codec_id).strip(body))
        except StorageError as error:
            _locate(error, run_id, key)
            raise
        return seal(codec_id, body, context, self._secret)

    def _is_current(self, payload: bytes, context: bytes) -> bool:
        try:
            codec_id, body = unseal(payload, context, self._secret)
            codec = self._errors if marks_error(codec_id) else self._codec
            return codec.is_current(codec_id, body)
        except StorageError:
            return False

    def _not_storable(
        self, value: Any, error: Exception, run_id: str, key: str, kind: str
    ) -> ResultNotStorable:
        where = error.where if isinstance(error, ResultNotStorable) else None
        if where is None:
            where = describe_fault(value, self._storable)
        at = f", at {where.strip()}" if where else ""
        return ResultNotStorable(
            f"a value of type {type(value).__qualname__} ({kind} of run {run_id}) cannot be stored{at}: "
            f"{_reason(error)}. Return plain data, leave that part out, or give its class __getstate__ and "
            "__setstate__",
            run=run_id,
            key=key,
            where=where,
        )

    def _storable(self, part: Any) -> bool:
        try:
            self._loads(self._dumps(part))
        except Exception:  # whatever a codec raises
            return False
        return True


def _context(run_id: str, key: str, kind: str) -> bytes:
    """Join the three parts. No other three parts give the same bytes."""
    try:
        if "\0" not in run_id and "\0" not in key:
            return f"0{run_id}\0{key}\0{kind}".encode()
    except UnicodeEncodeError:
        pass
    return f"1{len(run_id)},{len(key)}:{run_id}{key}{kind}".encode("utf-8", "surrogatepass")


def _reason(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, StorageError) and error.__cause__ is not None else error
    text = str(cause) or "no reason given"
    return text if isinstance(cause, ResultNotStorable) else f"{type(cause).__name__}: {text}"


def _locate(error: StorageError, run_id: str, key: str) -> None:
    """Say in *error* of which record it is."""
    if "run" not in error.__dict__:
        place = (
            f"run {run_id}, step {key[:12]}" if run_id and key else f"run {run_id}" if run_id else "a memo"
        )
        error.args = (f"{place}: {error}", *error.args[1:])
        error.__dict__.update(run=run_id or None, key=key)

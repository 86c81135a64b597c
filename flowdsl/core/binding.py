"""From a call to what counts of it: arguments bound to parameter names and encoded.

A :class:`Binder` is made once for each function. It does the slow work then (signature, encodings of names
and defaults). It makes a :class:`Bound` of each call:

* An argument counts unless its parameter is ignored or it *encodes as its default*. (The default object
  itself is not even encoded.) So a key does not change when an optional parameter is added, or when a default
  is passed explicitly. ``*args`` and ``**kwargs`` have the defaults ``()`` and ``{}``.
* Counted arguments are encoded with their names and in order of the names, so parameters may change places.
* The left-out defaults are recorded beside the key, as a short digest for each name. If a default is changed
  later, the key stays the same, and :func:`changed_defaults` reports it. A default without an encoding is
  known by its type only.
* With ``key=``, the result of that function counts in place of all arguments.
* A receiver counts if it is a class (by its path), or if its class has ``__flow_key__``.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any

from flowdsl.core.bound import NO_RECEIVER, Bound, Shape, changed_defaults, has_identity
from flowdsl.core.encoding import ENCODERS, encode
from flowdsl.core.keys import object_path
from flowdsl.core.quick_bind import Counted, QuickBind, generate
from flowdsl.core.source import SOURCE
from flowdsl.core.unkeyable import Unkeyable
from flowdsl.errors import UnkeyableArgument

__all__ = ["NO_RECEIVER", "Binder", "Bound", "changed_defaults", "first_name", "has_identity"]


_NO_DEFAULT: Any = object()
_LIVE: Any = object()  # stands for the encoding of a default that may change in place: made when needed
_NO_KEYWORDS: dict[str, Any] = {}

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_VAR_POSITIONAL = inspect.Parameter.VAR_POSITIONAL
_VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD
_FIXED_TYPES = frozenset({type(None), bool, int, float, complex, str, bytes, type(...)})


class Binder:
    """Binds calls of one function.

    Parameters: *fn*, the plain function; *path*, the name of the step or workflow; *kind*, the word for it in
    messages; *ignore*, names of parameters that do not count and are not stored; *key*, a function called
    with the call's arguments, whose result counts in their place (it gets the receiver too if its first
    parameter has the same name as that of *fn*, say ``self``); *receiver*, whether the first parameter of
    *fn* is ``self`` or ``cls``; *injected*, parameters that no caller gives; *source*, a digest of the
    source, which is recorded and does not count.

    Raises ``ValueError`` for an ignored name that is no parameter. Raises ``TypeError`` for an object that
    has no signature.

    >>> def charge(amount, currency="EUR", client=None): ...
    >>> binder = Binder(charge, path="shop.charge", ignore=("client",))
    >>> call = binder.bind((10,), {"client": object()})
    >>> call.arguments
    {'amount': 10, 'currency': 'EUR'}
    >>> call.canonical == binder.bind((), {"currency": "EUR", "amount": 10}).canonical
    True
    """

    has_identity = staticmethod(has_identity)

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        path: str,
        kind: str = "step",
        ignore: Iterable[str] = (),
        key: Callable[..., Any] | None = None,
        receiver: bool = False,
        injected: tuple[str, ...] = (),
        source: str = "",
    ) -> None:
        self.path = path
        self.kind = kind
        self.name: str = getattr(fn, "__name__", path)
        self.key = key
        signature = _signature(fn, self.name)
        parameters = list(signature.parameters.values())
        receiver_name = ""
        if receiver and parameters and parameters[0].kind is not _VAR_POSITIONAL:
            receiver_name = parameters.pop(0).name
        parameters = [parameter for parameter in parameters if parameter.name not in injected]
        self._signature = signature.replace(parameters=parameters)
        ignored = (ignore,) if isinstance(ignore, str) else tuple(ignore)
        self.ignored = tuple(name for name in ignored if name not in injected)
        for name in self.ignored:
            if name not in self._signature.parameters and name != receiver_name:
                raise ValueError(
                    f"{kind} {path!r}: ignore= names {name!r}, but the parameters of {self.name}() are "
                    f"{_names(self._signature.parameters) or '(none)'}"
                )
        self._key_takes_receiver = (
            key is not None and receiver_name != "" and first_name(key) == receiver_name
        )
        self._source = f"{SOURCE}={source}" if source else ""
        self._prepare(parameters, counts_receiver=receiver_name not in self.ignored)

    def _prepare(self, parameters: list[inspect.Parameter], *, counts_receiver: bool) -> None:
        """Prepare once what each bind needs."""
        defaults = [_default(parameter) for parameter in parameters]
        self._positional = sum(parameter.kind in _POSITIONAL for parameter in parameters)
        self._by_name = [
            (parameter.name if parameter.kind in _BY_NAME else "", default)
            for parameter, default in zip(parameters, defaults, strict=True)
        ]
        # The rest of a call with n positional arguments and no keywords, where nothing else is needed.
        self._tails = {
            n: tuple(defaults[n:])
            for n in range(self._positional + 1)
            if not any(default is _NO_DEFAULT for default in defaults[n:])
        }
        variable = {p.name: p.kind for p in parameters if p.kind in (_VAR_POSITIONAL, _VAR_KEYWORD)}
        kept = tuple((p.name, place) for place, p in enumerate(parameters) if p.name not in self.ignored)
        self.shape = Shape(
            path=self.path,
            ignored=self.ignored,
            has_key=self.key is not None,
            counts_receiver=counts_receiver,
            kept=kept,
            bits=tuple((name, place, 1 << n) for n, (name, place) in enumerate(sorted(kept))),
            variable=frozenset(variable),
            keywords=next((name for name, kind in variable.items() if kind is _VAR_KEYWORD), ""),
        )
        self._plan = [
            (place, encode(name), defaults[place], _default_code(defaults[place]), bit)
            for name, place, bit in self.shape.bits
        ]
        self._default_texts: dict[int, str] = {}
        self._quick: QuickBind | None = None
        if self.key is None and not any(code is _LIVE for _, _, _, code, _ in self._plan):
            counted = [Counted(place, name, bit, code) for place, name, _, code, bit in self._plan]
            self._quick = generate(parameters, counted, ENCODERS)

    # ---------------------------------------------------------------------------------------------- a call

    def bind(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        receiver: Any = NO_RECEIVER,
        into: Bound | None = None,
    ) -> Bound:
        """Bind the arguments of one call, and encode those that count.

        Parameters: *args* and *kwargs* without the receiver; *receiver*, the ``self`` or ``cls`` if there is
        one; *into*, a new :class:`Bound` to fill. Returns a :class:`Bound`. Raises ``TypeError`` as Python
        does for arguments that do not fit. Raises :class:`~flowdsl.errors.UnkeyableArgument` for one that has
        no canonical encoding.
        """
        if self._quick is not None:
            try:
                values, canonical, left_out = self._quick(*args, **kwargs) if kwargs else self._quick(*args)
            except (TypeError, RecursionError):  # does not fit, or has no encoding: said below
                pass
            else:
                if receiver is not NO_RECEIVER:
                    canonical = self._receiver_code(receiver) + canonical
                defaults = self._defaults_of(left_out) if left_out else self._source
                bound = Bound() if into is None else into
                return bound.fill(self.shape, values, canonical, defaults, left_out, receiver)
        return self._bind_stepwise(args, kwargs, receiver, Bound() if into is None else into)

    def _bind_stepwise(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], receiver: Any, into: Bound
    ) -> Bound:
        """Bind any call. If it cannot be bound, say what is wrong with it."""
        if kwargs:
            values = self._bind_names(args, kwargs)
        else:
            tail = self._tails.get(len(args))
            values = args + tail if tail is not None else self._bind_slowly(args, kwargs)
        if self.key is not None:
            return self._bind_key(self.key, values, args, kwargs, receiver, into)
        codes = [b"A"] if receiver is NO_RECEIVER else [self._receiver_code(receiver), b"A"]
        left_out = place = 0
        try:
            for place, name, default, default_code, bit in self._plan:
                value = values[place]
                if value is default:
                    left_out |= bit
                    continue
                code = ENCODERS[type(value)](value, 0, None)
                if code == default_code or (default_code is _LIVE and code == _code_or_none(default)):
                    left_out |= bit
                else:
                    codes += (name, code)
        except Unkeyable as error:
            raise self._unkeyable(error, self._name_at(place)) from None
        except RecursionError:
            raise self._unkeyable(Unkeyable.no_stack(values[place]), self._name_at(place)) from None
        defaults = self._defaults_of(left_out) if left_out else self._source
        return into.fill(self.shape, values, b"".join(codes), defaults, left_out, receiver)

    def _bind_names(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """Bind a call whose keywords all name parameters. Any other call goes the slow way."""
        given = len(args)
        if given > self._positional:
            return self._bind_slowly(args, kwargs)
        values = list(args)
        unused = len(kwargs)
        for name, default in self._by_name[given:]:
            if name and name in kwargs:
                values.append(kwargs[name])
                unused -= 1
            elif default is _NO_DEFAULT:
                return self._bind_slowly(args, kwargs)
            else:
                values.append(default)
        return self._bind_slowly(args, kwargs) if unused else tuple(values)

    def _bind_slowly(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """Bind any call as Python does. (``Signature.bind`` does otherwise for positional-only names.)"""
        values, rest, taken, problem = [], dict(kwargs), 0, ""
        for name, parameter in self._signature.parameters.items():
            kind, value = parameter.kind, _default(parameter)
            if kind is _VAR_POSITIONAL:
                value, taken = args[taken:], len(args)
            elif kind is _VAR_KEYWORD:
                value, rest = rest, {}
            elif kind in _POSITIONAL and taken < len(args):
                value, taken = args[taken], taken + 1
                if kind in _BY_NAME and name in rest:
                    problem = problem or f"multiple values for argument {name!r}"
            elif kind in _BY_NAME:
                value = rest.pop(name, value)
            if value is _NO_DEFAULT:
                problem = problem or f"missing a required argument: {name!r}"
            values.append(value)
        if taken < len(args):
            problem = f"takes {self._positional} positional arguments, but {len(args)} were given"
        elif rest and not problem.startswith("multiple"):
            problem = f"got an unexpected keyword argument {next(iter(rest))!r}"
        if problem:
            raise TypeError(f"{self.name}() {problem} ({self.kind} {self.path!r})")
        return tuple(values)

    def _bind_key(
        self,
        key: Callable[..., Any],
        values: tuple[Any, ...],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        receiver: Any,
        into: Bound,
    ) -> Bound:
        first = (receiver,) if self._key_takes_receiver and receiver is not NO_RECEIVER else ()
        value = key(*first, *args, **kwargs)
        try:
            code = encode(value)
        except Unkeyable as error:
            raise self._unkeyable(error, "key()") from None
        head = b"" if receiver is NO_RECEIVER else self._receiver_code(receiver)
        return into.fill(self.shape, values, head + b"K" + code, self._source, 0, receiver, value)

    # -------------------------------------------------------------------------------- receivers, defaults

    def _receiver_code(self, receiver: Any) -> bytes:
        if not self.shape.counts(receiver):
            return b""
        if isinstance(receiver, type):
            return b"C" + encode(object_path(receiver))
        try:
            return b"R" + encode(receiver)
        except Unkeyable as error:
            raise self._unkeyable(error, "self") from None

    def _defaults_of(self, left_out: int) -> str:
        known = self._default_texts.get(left_out)
        return self._describe_defaults(left_out) if known is None else known

    def _describe_defaults(self, left_out: int) -> str:
        parts, live = [], False
        for (name, _, bit), (_, _, default, code, _) in zip(self.shape.bits, self._plan, strict=True):
            if left_out & bit and name not in self.shape.variable:
                if code is _LIVE:
                    live, code = True, _code_or_none(default) or b"?" + encode(object_path(type(default)))
                parts.append(f"{name}={blake2b(code, digest_size=4).hexdigest()}")
        text = " ".join([*parts, self._source] if self._source else parts)
        if not live:
            self._default_texts[left_out] = text
        return text

    # ------------------------------------------------------------------------------------------- and back

    def call_with(self, arguments: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give positional and keyword arguments for a call, from *arguments* like those of
        ``Bound.arguments``.

        A parameter that is not among them, because it is ignored or new, gets its default. Raises
        ``TypeError`` that names parameters without a default, and stored arguments that the function no
        longer takes.
        """
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        missing = []
        for name, parameter in self._signature.parameters.items():
            value = arguments.get(name, _default(parameter))
            if value is _NO_DEFAULT:
                missing.append(name)
            elif parameter.kind in _POSITIONAL:
                args.append(value)
            elif parameter.kind is _VAR_POSITIONAL:
                args.extend(value)
            elif parameter.kind is _VAR_KEYWORD:
                kwargs.update(value)
            else:
                kwargs[name] = value
        unknown = [name for name in arguments if name not in self._signature.parameters]
        why = f"{self.name}() cannot be called from its record ({self.kind} {self.path!r}): "
        if missing:
            hint = ", because ignored arguments are not stored" if set(missing) & set(self.ignored) else ""
            raise TypeError(
                f"{why}no value for {_names(missing)}{hint}; give the parameter a default, "
                "or call again with all arguments"
            )
        if unknown:
            raise TypeError(f"{why}it has no parameter {_names(unknown)} any more")
        return tuple(args), kwargs

    def _name_at(self, place: int) -> str:
        return list(self._signature.parameters)[place]

    def _unkeyable(self, error: Unkeyable, parameter: str) -> UnkeyableArgument:
        error = error.settle()
        where = parameter + error.where
        ways = [error.remedy] if error.remedy else []
        if parameter in self._signature.parameters:
            ways.append(f"leave it out with ignore=({parameter!r},)")
        if self.key is None and self.kind == "step":  # a workflow has no such option
            ways.append("say with key= what identifies the call")
        advice = f" You can {', or '.join(ways)}." if ways else ""
        return UnkeyableArgument(
            f"{self.kind} {self.path!r}: argument {parameter!r} has no key: "
            f"{where} ({error.kind}) {error.reason}.{advice}",
            step=self.path,
            parameter=parameter,
            where=where,
            reason=error.reason,
        )


def _signature(fn: Callable[..., Any], name: str) -> inspect.Signature:
    try:
        return inspect.signature(fn)
    except ValueError:
        raise TypeError(f"Python knows no signature of {name}; wrap it in a function of your own") from None


def first_name(fn: Callable[..., Any]) -> str:
    """The name of the function's first parameter; ``""`` if there is none or none is known."""
    try:
        return next(iter(inspect.signature(fn).parameters), "")
    except (TypeError, ValueError):
        return ""


def _default(parameter: inspect.Parameter) -> Any:
    if parameter.kind is _VAR_POSITIONAL:
        return ()
    if parameter.kind is _VAR_KEYWORD:
        return _NO_KEYWORDS
    return _NO_DEFAULT if parameter.default is parameter.empty else parameter.default


def _default_code(default: Any) -> Any:
    """Encoding of a default. ``_LIVE`` if that may change or not exist; ``None`` if there is no default."""
    if default is _NO_DEFAULT:
        return None
    empty = default is _NO_KEYWORDS or (type(default) is tuple and not default)
    return encode(default) if empty or type(default) in _FIXED_TYPES else _LIVE


def _code_or_none(default: Any) -> bytes | None:
    try:
        return encode(default)
    except Unkeyable:
        return None


def _names(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)

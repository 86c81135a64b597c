"""What a decorator says about a function, checked once, when it is decorated; and one call of that function.

The registry holds definitions, and the engine works on them. The layer above holds the decorated functions.
The engine sees those only as :class:`Decorated`: it can ask for the definition and for an
:class:`Invocation`.
"""

import inspect
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Self, TypeAlias, TypeVar
from weakref import WeakValueDictionary

from attrs import Factory, define, evolve, field, fields

from flowdsl.core.binding import NO_RECEIVER, Binder, Bound, first_name
from flowdsl.core.keys import object_path
from flowdsl.core.preview import preview
from flowdsl.core.records import Tags
from flowdsl.core.retry import Retry
from flowdsl.core.source import source_digest
from flowdsl.engine.option_checks import (
    CONNECTION,
    Divergence,
    Mode,
    check_ignored,
    check_template,
    checked_name,
    checked_step_options,
    checked_workflow_options,
    plain_function,
    takes_connection,
    unwrap,
)
from flowdsl.engine.twins import Twins, same_code
from flowdsl.engine.user import Args, Function, Named, Value

__all__ = [
    "NO_OPTIONS",
    "Decorated",
    "Invocation",
    "Parts",
    "StepDef",
    "WorkflowDef",
    "known_undo",
    "step_definition",
]


_undos: "WeakValueDictionary[str, Value]" = WeakValueDictionary()
"""Functions that a step was given as its undo, by path."""


def known_undo(path: str) -> Value:
    """The function of this path that a step was given as its undo; ``None`` if there is none.

    A record names its undo by path. Only functions that a step was given as its undo are ever called for it.
    """
    return _undos.get(path)


def undo_path(undo: Value) -> str:
    """The name of an undo in a step's record."""
    if isinstance(undo, Decorated):
        return undo.definition.path
    plain = unwrap(undo)
    return object_path(plain if hasattr(plain, "__qualname__") else type(plain))


def _check_transaction(defn: "StepDef") -> None:
    """Raise for options that do not go with ``transaction=True``."""
    told = f"step {defn.path}: transaction=True commits the step's record with the effects of its body"
    if defn.mode != "do":
        raise TypeError(f"{told}, and mode={defn.mode!r} has no record; leave the mode out")
    if defn.executor is not None:
        raise TypeError(f"{told}, in one transaction of this process; leave out executor=")
    if defn.heartbeat is not None:
        raise TypeError(f"{told}, and heartbeats are stored before; leave out heartbeat=")
    if not takes_connection(defn.fn):
        raise TypeError(f"{told}, over the connection that it gets: give it a parameter `connection`")


NO_OPTIONS = (
    *("fn", "path", "is_async", "receiver", "binders", "twins", "owner", "transacts", "never_undone"),
    "begins_at_once",
)
"""Fields of a definition that are not options of a decorator."""


def _owner_of(definition: "Definition") -> tuple[str, str] | None:
    """Module and name of the class that the function is a method of; ``None`` for a plain function."""
    fn = definition.fn
    name = getattr(fn, "__qualname__", "").rpartition(".")[0]
    is_method = name and not name.endswith("<locals>") and first_name(fn) == "self"
    return (fn.__module__, name) if is_method else None


def receiver_of(fn: Value) -> Value:
    """The object or class that a bound method is bound to; ``None`` for any other function."""
    return fn.__self__ if isinstance(fn, MethodType) else None


class Definition:
    """A function and its options. Calls are bound to the names of its parameters. *receiver* is what the
    function was bound to when it was decorated: ``workflow(obj.method)``."""

    __slots__ = ()
    kind: ClassVar[str]

    @property
    def source(self) -> str:
        """A digest of the function's source, for kinds that record it."""
        return ""

    @property
    def injected(self) -> tuple[str, ...]:
        """Parameters that the engine fills. No caller gives them, and they are in no key."""
        return ()

    @classmethod
    def known(cls, options: Named) -> None:
        """Raise for an option that does not exist."""
        names = [field.alias for field in fields(cls) if field.alias not in NO_OPTIONS]  # type: ignore[arg-type]
        unknown = [name for name in options if name not in names]
        if unknown:
            raise TypeError(
                f"{cls.kind} options are {', '.join(sorted(names))}; got {', '.join(sorted(unknown))}"
            )

    if TYPE_CHECKING:
        _owner: tuple[str, str] | None
        _twins: Twins | None
        fn: Function
        path: str
        receiver: Value
        ignore: tuple[str, ...]
        _binders: dict[bool, Binder]

    def binder(self, receiver: bool) -> Binder:
        """The binder of the function. With *receiver*, its first parameter is ``self`` or ``cls``."""
        found = self._binders.get(receiver)
        if found is None:
            found = self._binders[receiver] = Binder(
                self.fn,
                path=self.path,
                kind=self.kind,
                ignore=self.ignore,
                key=getattr(self, "key", None),
                receiver=receiver,
                injected=self.injected,
                source=self.source,
            )
        return found

    def rename(self, path: str) -> None:
        """Give it another path. What was bound under the old one is dropped."""
        self.path = path  # type: ignore[misc]  # a slot of the subclasses
        self._binders.clear()

    def joins(self, before: "Definition") -> None:
        """This definition replaces *before*, which the same code has made (a factory, or a decorator without
        ``functools.wraps``). While both live, their records may be mixed up."""
        if before is self or not same_code(self.fn, before.fn):
            return
        if before._twins is None:
            before._twins = Twins(before)  # type: ignore[misc]  # a slot of the subclasses
        self._twins = before._twins  # type: ignore[misc]
        self._twins.add(self)

    def is_receiver(self, value: object) -> bool:
        """Whether *value* is the ``self`` of a method that a decorator above called as a function."""
        if self._owner is None:  # quick, because each call of a step comes through here
            return False
        return any((cls.__module__, cls.__qualname__) == self._owner for cls in type(value).__mro__)

    def call(self, args: Args, kwargs: Named) -> "Invocation[Self]":
        """A call of the plain function, made by something that names it (a record,
        ``schedule("charge")``)."""
        receiver = self.receiver
        fn = self.fn if receiver is None else MethodType(self.fn, receiver)
        return Invocation(self, fn, receiver, args, kwargs)

    def call_with(self, arguments: Named) -> "Invocation[Self]":
        """A call with stored *arguments*, by parameter name."""
        args, kwargs = self.binder(self.receiver is not None).call_with(arguments)
        return self.call(args, kwargs)

    def require_by_name(self, called: "Invocation[Self]", what: str) -> None:
        """Raise if *called* is a method of an object that the name of this definition does not lead to.
        *what* is about to be stored, with the name and the arguments, but without the object."""
        if called.receiver is not None and called.receiver is not self.receiver:
            name = self.path.rpartition(".")[2]
            raise TypeError(
                f"{self.kind} {self.path} was called on {preview(called.receiver, 80)}, and {what} stores "
                "arguments only, so that object would not be found again. Use a function that makes it and "
                f"calls {name}(), or decorate the bound method: {self.kind}(obj.{name}, name=…)"
            )

    def bind(self, receiver: Value, args: Args, kwargs: Named, into: Bound | None = None) -> Bound:
        """The arguments of one call, bound and encoded. *receiver* is ``self``, ``cls`` or ``None``; *into*
        is a new object to fill."""
        if self._twins is not None:
            self._twins.require_one(self)
        binder = self._binders.get(receiver is not None) or self.binder(receiver is not None)
        return binder.bind(args, kwargs, NO_RECEIVER if receiver is None else receiver, into)


@define(slots=True, eq=False, repr=False)
class StepDef(Definition):
    """One step: the function and its options."""

    fn: Function
    path: str
    is_async: bool
    mode: Mode = "do"
    retry: Retry | None = None
    timeout: float | None = None
    heartbeat: float | None = None
    key: Function | None = None
    ignore: tuple[str, ...] = ()
    version: str = ""
    memo: bool = False
    expires: float | None = None
    in_doubt: str = "rerun"
    undo: Value = None
    executor: Executor | None = None
    transaction: bool = False
    on_divergence: Divergence | None = None
    never_undone: bool = False  # a call said undo=None
    receiver: Value = None
    _binders: dict[bool, Binder] = field(factory=dict)
    _twins: Twins | None = None
    _owner: tuple[str, str] | None = field(init=False, default=Factory(_owner_of, takes_self=True))
    begins_at_once: bool = field(init=False, default=False)  # nothing is asked before its first attempt
    kind: ClassVar[str] = "step"

    @classmethod
    def build(cls, fn: Value, *, name: str | None, **options: Value) -> Self:
        """Check *options* and make the definition of step *fn*."""
        checked_name(name, "step")
        cls.known(options)
        plain = plain_function(fn, "step", name)
        path = name or object_path(plain)
        return cls(
            plain,
            path,
            inspect.iscoroutinefunction(plain),
            receiver=receiver_of(fn),
            **checked_step_options(options),
        ).consistent()

    def consistent(self) -> Self:
        """Returns itself. Raises for options that contradict each other."""
        check_ignored(self.fn, self.ignore)
        if self.undo is not None and not isinstance(self.undo, MethodType | partial):
            path = undo_path(self.undo)
            if "<" not in path:  # a function local to another one belongs to that one
                _undos[path] = self.undo
        if self.expires is not None and not self.memo:
            raise ValueError("expires= says how long a shared result counts, so it goes with memo=True")
        if self.transaction:
            _check_transaction(self)
        asks = self.transaction or self.memo or self.undo is not None
        self.begins_at_once = not (asks or self.in_doubt == "raise" or self.heartbeat is not None)
        return self

    @property
    def injected(self) -> tuple[str, ...]:
        """The connection of a transactional step."""
        return (CONNECTION,) if self.transaction else ()

    def require_inline(self) -> None:
        """Raise if the step cannot execute beside its caller."""
        if self.transaction:
            raise TypeError(
                f"step {self.path} is transactional: its body shares a transaction with its record, and is "
                "executed where it is called; call it instead of submit() or map()"
            )

    def connected(self, called: "Invocation[StepDef]", connection: Value) -> tuple[Args, Named]:
        """The arguments of a call with the *connection* of its transaction among them."""
        names = list(inspect.signature(self.fn).parameters)[called.receiver is not None :]
        place = names.index(CONNECTION) if CONNECTION in names else len(called.args)
        if place < len(called.args):  # it comes before parameters that were given by position
            return (*called.args[:place], connection, *called.args[place:]), called.kwargs
        return called.args, {**called.kwargs, CONNECTION: connection}

    @property
    def source(self) -> str:
        """A digest of the function's source."""
        return source_digest(self.fn)

    @property
    def undo_path(self) -> str | None:
        """The name of the undo. ``None`` for none; empty if a call said that there is none."""
        if self.undo is None:
            return "" if self.never_undone else None
        return undo_path(self.undo)

    def evolve(self, **options: Value) -> Self:
        """The same step with other options."""
        self.known(options)
        done = checked_step_options(options)
        never = self.never_undone if "undo" not in done else done["undo"] is None
        return evolve(self, **done, never_undone=never, binders={}).consistent()


@define(slots=True, eq=False, repr=False)
class WorkflowDef(Definition):
    """One workflow: the function and its options."""

    fn: Function
    path: str
    is_async: bool
    id: str | Callable[..., str] | None = None
    ignore: tuple[str, ...] = ()
    timeout: float | None = None
    cleanup: float = 60.0
    version: str = ""
    on_complete: Function | None = None
    on_error: Function | None = None
    tags: Tags = ()
    receiver: Value = None
    # Whether its run is one transactional step.
    _transacts: bool = field(default=False, kw_only=True, alias="transacts")
    _binders: dict[bool, Binder] = field(factory=dict)
    _twins: Twins | None = None
    _owner: tuple[str, str] | None = field(init=False, default=Factory(_owner_of, takes_self=True))
    kind: ClassVar[str] = "workflow"

    @classmethod
    def build(cls, fn: Value, *, name: str | None, **options: Value) -> Self:
        """Check *options* and make the definition of workflow *fn*."""
        checked_name(name, "workflow")
        plain = plain_function(fn, "workflow", name)
        path = name or object_path(plain)
        cls.known(options)
        done = checked_workflow_options(options)
        check_ignored(plain, done["ignore"])
        if isinstance(done.get("id"), str):
            check_template(plain, done["id"], done["ignore"])
        is_async = inspect.iscoroutinefunction(plain)
        for option in ("on_complete", "on_error"):
            if inspect.iscoroutinefunction(done.get(option)) and not is_async:
                raise TypeError(
                    f"{option}= of workflow {path} is async, but the workflow is not, so nobody could await "
                    "it; make it a plain function, or the workflow `async def`"
                )
        return cls(plain, path, is_async, receiver=receiver_of(fn), **done)

    @property
    def injected(self) -> tuple[str, ...]:
        """The connection, if the run is one transactional step."""
        return (CONNECTION,) if self._transacts else ()


D = TypeVar("D", bound=Definition, covariant=True)


class Invocation(NamedTuple, Generic[D]):
    """One call of a decorated function: its definition, and the function to call with *args* and *kwargs*.
    *receiver* is ``self`` or ``cls``, to which *fn* is bound already, or ``None``."""

    defn: D
    fn: Function
    receiver: Value
    args: Args
    kwargs: Named

    def bind(self) -> Bound:
        """The arguments, bound and encoded. Raises for arguments that do not fit or have no key."""
        defn, _, receiver, args, kwargs = self
        return defn.bind(receiver, args, kwargs)


Parts: TypeAlias = tuple[D, Function, Value, Args, Named]
"""The fields of an :class:`Invocation` as a plain tuple, which is made six times as quickly."""


class Decorated:
    """A decorated function, as the engine sees it."""

    @property
    def definition(self) -> StepDef | WorkflowDef:
        """The function and its options."""
        raise NotImplementedError

    def invocation(self, args: Args, kwargs: Named) -> Invocation[Any]:  # of what it decorates
        """A call of the function."""
        raise NotImplementedError


def step_definition(thing: object) -> StepDef | None:
    """The definition of a function decorated with ``@step``, ``None`` for anything else."""
    found = thing.definition if isinstance(thing, Decorated) else None
    return found if isinstance(found, StepDef) else None

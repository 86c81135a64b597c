"""Checks of what is given to a decorator. They run where it is written, and the error shows the right way."""

import inspect
from collections.abc import Iterable, Mapping
from string import Formatter
from typing import Literal, cast

from flowdsl.core.durations import seconds
from flowdsl.core.records import Tags
from flowdsl.core.retry import Retry
from flowdsl.engine.user import Function, Named, Value

__all__ = [
    "CONNECTION",
    "DIVERGENCES",
    "Divergence",
    "InDoubt",
    "Mode",
    "check_ignored",
    "check_template",
    "checked_name",
    "checked_step_options",
    "checked_tags",
    "checked_timeout",
    "checked_workflow_options",
    "plain_function",
    "takes_connection",
    "unwrap",
]

CONNECTION = "connection"
"""The parameter of a transactional step that the engine fills."""

Mode = Literal["do", "try", "send"]
Divergence = Literal["raise", "rerun", "reuse"]
InDoubt = Literal["rerun", "raise"]

_MODES = ("do", "try", "send")
DIVERGENCES = ("raise", "rerun", "reuse")
_IN_DOUBT = ("rerun", "raise")
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def unwrap(fn: Value) -> Function:
    """The plain function inside a classmethod, staticmethod or bound method."""
    while True:
        inner = getattr(fn, "__func__", None)
        if inner is None:
            return cast("Function", fn)
        fn = inner


def plain_function(fn: Value, what: str, name: str | None) -> Function:
    plain = unwrap(fn)
    if not callable(plain):
        raise TypeError(f"@{what} decorates a function; got {fn!r}")
    if inspect.isclass(plain):
        raise TypeError(
            f"@{what} decorates a function, not the class {plain.__qualname__}; decorate its methods"
        )
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        raise TypeError(
            f"@{what} cannot decorate the generator {getattr(plain, '__qualname__', plain)!r}: a result "
            "is stored once, when the "
            "function returns. Return a list, or make each item a step of its own: `for item in items: "
            "handle(item)`"
        )
    if getattr(plain, "__name__", "") == "<lambda>" and name is None:
        raise TypeError(
            f"a lambda has no name to be recorded under: write @{what} over a def, or give a name: "
            f'{what}(lambda x: ..., name="double")'
        )
    return plain


def checked_name(name: Value, what: str) -> None:
    if name is not None and (not isinstance(name, str) or not name.strip()):
        raise ValueError(f"{what}(name=…) is a non-empty string; got {name!r}")


def takes_connection(fn: Function) -> bool:
    """Whether the body of a transactional step can be given its connection by name."""
    parameters = inspect.signature(fn).parameters.values()
    return any((p.name == CONNECTION and p.kind in _NAMED) or p.kind is p.VAR_KEYWORD for p in parameters)


def _check_choice(value: Value, allowed: tuple[str, ...], option: str) -> None:
    if value not in allowed:
        raise ValueError(f"{option} is one of {', '.join(map(repr, allowed))}; got {value!r}")


def checked_timeout(value: Value, option: str = "timeout") -> float | None:
    """A timeout in seconds, or ``None``. It must be greater than zero."""
    if value is None:
        return None
    duration = seconds(value, option)
    if duration <= 0:
        raise ValueError(f"{option} is a duration above 0; got {value!r}")
    return duration


def checked_tags(tags: Value) -> Tags:
    """Tags as given by a user: names, or a mapping of names to values, all of them text."""
    if tags is None:
        return ()
    if isinstance(tags, str):
        return (tags,)
    if isinstance(tags, Mapping):
        items = dict(tags)
        if all(isinstance(k, str) and isinstance(v, str) for k, v in items.items()):
            return items
    elif isinstance(tags, Iterable):
        names = tuple(tags)
        if all(isinstance(name, str) for name in names):
            return names
    raise TypeError(f"tags are strings, or a mapping of strings to strings; got {tags!r}")


def _checked_version(version: Value) -> str:
    """A version as text; ``None`` is no version."""
    if version is None:
        return ""
    if isinstance(version, bool) or not isinstance(version, str | int):
        raise TypeError(f"version= is a string or an integer; got {version!r}")
    return str(version)


def _checked_names(value: Value, option: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    names = tuple(value) if isinstance(value, Iterable) else (value,)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"{option}= holds names of parameters; got {value!r}")
    return names


def _parameters_of(fn: Function) -> tuple[str, ...] | None:
    """The names of a function's parameters; ``None`` if the function does not tell them."""
    try:
        return tuple(inspect.signature(fn).parameters)
    except (TypeError, ValueError):
        return None


def check_ignored(fn: Function, ignore: tuple[str, ...]) -> None:
    """Raise for a name that is no parameter. A misspelt name would stay in the key, and make every call
    new."""
    parameters = _parameters_of(fn) if ignore else None
    for name in ignore:
        if parameters is not None and name not in parameters:
            raise ValueError(
                f"ignore= names {name!r}, but the parameters of {getattr(fn, '__qualname__', fn)}() are "
                f"{', '.join(map(repr, parameters)) or '(none)'}"
            )


def check_template(fn: Function, template: str, ignore: tuple[str, ...]) -> None:
    """Raise for an id template that no arguments of *fn* can fill."""
    try:
        holes = [hole for _, hole, _, _ in Formatter().parse(template) if hole is not None]
    except ValueError as error:
        raise ValueError(f"workflow(id={template!r}) is no template: {error}") from None
    parameters = _parameters_of(fn) if holes else None
    if parameters is None:
        return
    for hole in holes:
        if hole.partition(".")[0].partition("[")[0] not in set(parameters) - set(ignore):
            raise ValueError(
                f"workflow(id={template!r}) has the field {{{hole}}}, but the parameters that count of "
                f"{getattr(fn, '__qualname__', fn)}() are "
                f"{', '.join(repr(name) for name in parameters if name not in ignore) or '(none)'}"
            )


def checked_step_options(options: Named) -> Named:
    """The options of a step as the definition holds them. Raises for wrong ones."""
    done = dict(options)
    if "mode" in done:
        _check_choice(done["mode"], _MODES, "mode")
    if done.get("retry") is not None and not isinstance(done["retry"], Retry):
        raise TypeError(f"retry= is a Retry(…); got {done['retry']!r}. For three attempts: Retry(attempts=3)")
    if "timeout" in done:
        done["timeout"] = checked_timeout(done["timeout"])
    if "heartbeat" in done:
        done["heartbeat"] = checked_timeout(done["heartbeat"], "heartbeat")
    if done.get("expires") is not None:
        done["expires"] = checked_timeout(done["expires"], "expires")
    if "ignore" in done:
        done["ignore"] = _checked_names(done["ignore"], "ignore")
    if "version" in done:
        done["version"] = _checked_version(done["version"])
    if "in_doubt" in done:
        _check_choice(done["in_doubt"], _IN_DOUBT, "in_doubt")
    if done.get("on_divergence") is not None:
        _check_choice(done["on_divergence"], DIVERGENCES, "on_divergence")
    for option in ("key", "undo"):
        if done.get(option) is not None and not callable(done[option]):
            raise TypeError(f"{option}= is a function; got {done[option]!r}")
    executor = done.get("executor")
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(f"executor= is a concurrent.futures.Executor; got {executor!r}")
    if not isinstance(done.get("memo", False), bool):
        raise TypeError(f"memo= is True or False; got {done['memo']!r}")
    if not isinstance(done.get("transaction", False), bool):
        raise TypeError(f"transaction= is True or False; got {done['transaction']!r}")
    return done


def checked_workflow_options(options: Named) -> Named:
    """The options of a workflow as the definition holds them. Raises for wrong ones."""
    done = dict(options)
    run_id = done.get("id")
    if run_id is not None and not (callable(run_id) or (isinstance(run_id, str) and run_id.strip())):
        raise TypeError(
            f'workflow(id=…) is a template such as "order-{{order_id}}", or a function of the '
            f"arguments; got {run_id!r}"
        )
    for option in ("on_complete", "on_error"):
        if done.get(option) is not None and not callable(done[option]):
            raise TypeError(f"{option}= is a function; got {done[option]!r}")
    done["timeout"] = checked_timeout(done.get("timeout"))
    if "cleanup" in done:
        done["cleanup"] = seconds(done["cleanup"], "cleanup")
    done["version"] = _checked_version(done.get("version"))
    done["ignore"] = _checked_names(done.get("ignore", ()), "ignore")
    done["tags"] = checked_tags(done.get("tags"))
    return done

"""A binder that is generated for one signature. Python itself binds, and what counts is encoded in one go.

For ``def charge(order, currency="EUR")`` it makes the function below. The real one has longer names for what
is no parameter, so that no parameter can hide them::

    def bind(order, currency=default_1):
        left_out = 0
        code_0 = name_0 + encoders[type(order)](order, 0, None)
        if currency is default_1:
            left_out |= 1
            code_1 = b""
        else:
            ...
        return (order, currency), b"A" + code_1 + code_0, left_out

It only knows the way of a call that fits. If it raises a ``TypeError``,
:class:`~flowdsl.core.binding.Binder` binds the call again step by step, and says what is wrong.
"""

import keyword
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Any, NamedTuple

__all__ = ["Counted", "QuickBind", "generate"]

QuickBind = Callable[..., tuple[tuple[Any, ...], bytes, int]]
"""Takes the arguments of a call. Returns the values of all parameters, the encoding of what counts, and the
bits of the parameters that equal their default."""

_MOST = 30  # parameters; signatures with more are rare, and bound step by step


class Counted(NamedTuple):
    """A parameter that counts: its place in the signature, its encoded name, the bit that says that it was
    left out, and the encoding of its default (``None`` if it has none)."""

    place: int
    name: bytes
    bit: int
    default: bytes | None


def generate(
    parameters: Sequence[Parameter], counted: Sequence[Counted], encoders: Mapping[type, Any]
) -> QuickBind | None:
    """Generate the binder of a signature.

    Parameters: *parameters* without the receiver; the *counted* ones, in the order of encoding; *encoders*,
    type → encoder. Returns ``None`` for a signature that cannot be written down.
    """
    names = [parameter.name for parameter in parameters]
    if len(names) > _MOST or any(
        not name.isidentifier() or keyword.iskeyword(name) or name.startswith("flow_") for name in names
    ):
        return None
    known: dict[str, Any] = {"flow_encoders": encoders, "flow_type": type, "flow_int": int}
    lines = [f"def flow_bind({_signature(parameters, known)}):", "  flow_left_out = 0"]
    for one in counted:
        known[f"flow_name_{one.place}"], known[f"flow_code_{one.place}"] = one.name, one.default
        lines += _encoded(one, parameters[one.place])
    codes = "".join(f", flow_{one.place}" for one in counted)
    lines.append(
        f"  return ({''.join(f'{name}, ' for name in names)}), b''.join((b'A'{codes},)), flow_left_out"
    )
    exec("\n".join(lines), known)
    made: QuickBind = known.pop("flow_bind")  # kept there, it would hold itself
    return made


def _signature(parameters: Sequence[Parameter], known: dict[str, Any]) -> str:
    """Write the parameters down. Their defaults are in *known*."""
    parts: list[str] = []
    for place, parameter in enumerate(parameters):
        kind = parameter.kind
        if kind is Parameter.KEYWORD_ONLY and not any("*" in part for part in parts):
            parts.append("*")
        stars = "*" if kind is Parameter.VAR_POSITIONAL else "**" if kind is Parameter.VAR_KEYWORD else ""
        text = f"{stars}{parameter.name}"
        if parameter.default is not Parameter.empty:
            known[f"flow_default_{place}"] = parameter.default
            text += f"=flow_default_{place}"
        parts.append(text)
        if kind is Parameter.POSITIONAL_ONLY and all(
            later.kind is not kind for later in parameters[place + 1 :]
        ):
            parts.append("/")
    return ", ".join(parts)


def _encoded(one: Counted, parameter: Parameter) -> list[str]:
    """Lines that set ``flow_<place>`` to the encoded name and value, or to nothing if it equals the
    default."""
    name, code = parameter.name, f"flow_{one.place}"
    make = (
        f'b"i%x;" % {name} if flow_type({name}) is flow_int '
        f"else flow_encoders[flow_type({name})]({name}, 0, None)"
    )
    if one.default is None:
        return [f"  {code} = flow_name_{one.place} + ({make})"]
    left_out = [f"    flow_left_out |= {one.bit}", f"    {code} = b''"]
    if parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
        return [f"  if not {name}:", *left_out, "  else:", f"    {code} = flow_name_{one.place} + ({make})"]
    return [
        f"  {code} = flow_code_{one.place} if {name} is flow_default_{one.place} else ({make})",
        f"  if {code} == flow_code_{one.place}:",
        *left_out,
        "  else:",
        f"    {code} = flow_name_{one.place} + {code}",
    ]

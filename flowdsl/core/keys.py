"""Names and keys: a function's name in every process, and the digests that address its calls.

A key is a BLAKE2b digest (RFC 7693) of 160 bits, written as 40 hex digits. It covers everything that makes a
call that call: encoding version, scope, path, version, canonical arguments and occurrence. With 160 bits, an
accidental collision among 10¹² records is less likely than 10⁻²⁴.

Every part is framed by its length, and every kind of digest begins with its own tag. So two different calls
never feed the same bytes to the hash. The golden file of the tests pins the outcome. Changing any byte here
is a breaking change.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from flowdsl.core.naming import main_name

__all__ = [
    "ENCODING_VERSION",
    "branch_scope",
    "content_digest",
    "explain",
    "object_path",
    "run_key",
    "short",
    "step_key",
]

ENCODING_VERSION = 1
"""Version of the canonical encoding. It is part of every key, so a new one makes every key new."""

_DIGEST_SIZE = 20
_MAIN_MODULES = ("__main__", "__mp_main__")  # multiprocessing gives the second name to the script in a child


# ---------------------------------------------------------------------------------------------- names


def object_path(obj: Any) -> str:
    """Give the dotted path of a function or class, which is the same in every process.

    Parameters: *obj*, a function, class, or anything else with ``__module__`` and ``__qualname__``.
    Returns ``module.qualname``, where ``__main__`` is replaced by :func:`~flowdsl.core.naming.main_name`.
    Raises ``TypeError`` if *obj* has no qualified name.

    >>> from fractions import Fraction
    >>> object_path(Fraction.limit_denominator)
    'fractions.Fraction.limit_denominator'
    """
    name = getattr(obj, "__qualname__", None)
    if not isinstance(name, str):
        raise TypeError(
            f"{type(obj).__name__} object has no qualified name; a function or a class was expected"
        )
    module = getattr(obj, "__module__", None)
    if not isinstance(module, str):
        module = "builtins"  # C methods such as dict.fromkeys have none
    if module in _MAIN_MODULES:
        module = main_name()
    return f"{module}.{name}"


# -------------------------------------------------------------------------------------------- digests


def _framed(*parts: str) -> bytes:
    # Lengths are in characters. UTF-8 can be read back character by character, so that is as good as bytes.
    return "".join([f"{len(part)}:{part}" for part in parts]).encode("utf-8", "surrogatepass")


@lru_cache(maxsize=4096)
def _begun(scope: str, path: str, version: str) -> Any:
    """A digest of everything but the arguments. It is copied for each call."""
    head = b"flowdsl step %d " % ENCODING_VERSION + _framed(scope, path, version)
    return blake2b(head, digest_size=_DIGEST_SIZE)


def content_digest(scope: str, path: str, version: str, canonical: bytes) -> bytes:
    """Digest the identity of a call, apart from its occurrence.

    Parameters: *scope* of the call (``""`` for the run itself), *path* of the step, *version* (``""`` for
    none), *canonical* encoding of its arguments. Returns 20 bytes. Two calls have the same digest exactly if
    all four are the same.

    >>> content_digest("", "shop.charge", "", b"").hex()
    '1f507b4ab10fa29d9c9f921eb3955229a55581fd'
    """
    digest = _begun(scope, path, version).copy()
    digest.update(canonical)
    return digest.digest()  # type: ignore[no-any-return]


def step_key(content: bytes, occurrence: int = 0) -> str:
    """Give the key of the *occurrence*-th (0, 1, …) call whose :func:`content_digest` is *content*.

    Returns 40 hex digits. The first call's key is the content digest itself. That saves a second hash in the
    most frequent case.

    >>> content = content_digest("", "game.roll", "", b"")
    >>> step_key(content, 0) == step_key(content, 1)
    False
    """
    if occurrence == 0:
        return content.hex()
    return blake2b(b"flowdsl again %d:%b" % (occurrence, content), digest_size=_DIGEST_SIZE).hexdigest()


@lru_cache(maxsize=4096)
def _begun_run(path: str, version: str) -> Any:
    """As :func:`_begun`, for a run."""
    head = b"flowdsl run %d " % ENCODING_VERSION + _framed(path, version)
    return blake2b(head, digest_size=_DIGEST_SIZE)


def run_key(path: str, version: str, canonical: bytes) -> str:
    """Give the key under which runs of the same workflow and arguments are numbered, as 40 hex digits.

    Parameters: *path* of the workflow, its *version* (``""`` for none), *canonical* encoding of its
    arguments.

    >>> len(run_key("shop.checkout", "", b""))
    40
    """
    digest = _begun_run(path, version).copy()
    digest.update(canonical)
    key: str = digest.hexdigest()
    return key


def branch_scope(scope: str, kind: str, ordinal: int, index: int) -> str:
    """Name the scope of one branch, such as the *index*-th of the *ordinal*-th ``gather`` of a scope.

    Returns 40 hex digits, so nested branches stay as short as flat ones.

    >>> branch_scope("", "gather", 0, 1) == branch_scope("", "gather", 1, 0)
    False
    """
    head = b"flowdsl branch %d " % ENCODING_VERSION + _framed(scope, kind, str(ordinal), str(index))
    return blake2b(head, digest_size=_DIGEST_SIZE).hexdigest()


def short(key: str) -> str:
    """Shorten a key for people to read: its first 10 digits, like git.

    >>> short("1f507b4ab10fa29d9c9f921eb3955229a55581fd")
    '1f507b4ab1'
    """
    return key[:10]


# ---------------------------------------------------------------------------------------- explanation


def explain(
    *,
    path: str,
    canonical: bytes,
    counted: Sequence[tuple[str, str]],
    defaulted: Sequence[tuple[str, str]] = (),
    ignored: Iterable[str] = (),
    receiver: str = "",
    scope: str = "",
    version: str = "",
    occurrence: int = 0,
    notes: Sequence[tuple[str, str]] = (),
) -> str:
    """Explain, in several readable lines, what went into a key.

    Parameters: *counted* arguments, and *defaulted* ones (left out because they equal their default), as
    pairs of name and preview; *ignored* names; *receiver* (text about ``self`` or ``cls``); *notes* on things
    that do not count, as pairs of label and text; the rest as in :func:`content_digest`. Returns text whose
    last line is the key.

    >>> print(explain(path="game.roll", canonical=b"", counted=[("sides", "6")], ignored=["rng"]))
    encoding    version 1
    scope       the run itself
    path        game.roll
    version     none
    argument    sides=6
    left out    rng (ignored)
    occurrence  0 (the first such call in its scope)
    key         6e1b1852f4f78c635f863ddd7803d75ce6675437
    """
    key = step_key(content_digest(scope, path, version, canonical), occurrence)
    lines = [
        ("encoding", f"version {ENCODING_VERSION}"),
        ("scope", scope or "the run itself"),
        ("path", path),
        ("version", version or "none"),
    ]
    if receiver:
        lines.append(("receiver", receiver))
    lines += [("argument", f"{name}={text}") for name, text in counted]
    if not counted:
        lines.append(("argument", "none"))
    lines += [("left out", f"{name}={text} (equals its default)") for name, text in defaulted]
    lines += [("left out", f"{name} (ignored)") for name in ignored]
    nth = "the first such call in its scope" if occurrence == 0 else f"after {occurrence} equal in its scope"
    lines.append(("occurrence", f"{occurrence} ({nth})"))
    lines += [*notes, ("key", key)]
    return "\n".join(f"{label:<12}{text}" for label, text in lines)

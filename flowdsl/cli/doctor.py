"""``flowdsl doctor``: check everything, and say what to do about problems."""

import os
import platform
import re
import sqlite3
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flowdsl.cli._checks import OK, PROBLEM, WARNING, Check, sqlite_checks, sqlite_race
from flowdsl.cli._command import Cli, command, missing_database
from flowdsl.cli._execute import APP
from flowdsl.cli._find import every_run
from flowdsl.cli._modules import app_payloads
from flowdsl.cli._postgres_checks import postgres_checks
from flowdsl.codecs.protection import protection_of
from flowdsl.core.records import RunFilter
from flowdsl.core.status import RunStatus
from flowdsl.errors import FlowError
from flowdsl.handle import shown_status
from flowdsl.runtime import Runtime
from flowdsl.storage.left_out import left_out
from flowdsl.storage.sqlite.url import sqlite_path

__all__ = ["doctor"]

SIGNS = {OK: ("✓", "green"), WARNING: ("!", "yellow"), PROBLEM: ("✗", "bold red")}
UNPROTECTED = ("–", "")
STYLES = {OK: "", WARNING: "yellow", PROBLEM: "red"}
TITLES = {
    "python": "Python",
    "sqlite": "SQLite",
    "postgresql": "PostgreSQL",
    "write_ahead_log": "write-ahead log",
}
_NAMED = 3  # interrupted runs that are named


@command(
    epilog="""\b
Examples:
  flowdsl doctor
  flowdsl doctor --app shop
  flowdsl doctor --storage sqlite:////var/lib/shop/flow.db --json"""
)
@APP
def doctor(cli: Cli, app: str | None) -> int:
    """Check versions, the storage and its runs, and how the stored data is protected.

    Nothing is changed. The exit code is 1 if there is a problem; warnings do not count.
    """
    found = [*_versions(), *_storage(cli), *_protection(app)]
    problems = sum(check.state == PROBLEM for check in found)
    warnings = sum(check.state == WARNING for check in found)
    if cli.as_json:
        checks = [
            {"name": one.name, "state": one.state, "message": one.message, **one.facts} for one in found
        ]
        cli.out.document({"ok": not problems, "storage": _without_password(cli.url), "checks": checks})
        return 1 if problems else 0
    cli.out.grid([[(_title(one.name), "dim"), _sign(one), (one.message, STYLES[one.state])] for one in found])
    cli.out.line("")
    cli.out.line(_count(problems, "problem"), ", ", _count(warnings, "warning"))
    return 1 if problems else 0


def _sign(check: Check) -> tuple[str, str]:
    """The sign of a check. Missing protection is neither a fault nor a tick."""
    return UNPROTECTED if check.facts.get("unprotected") else SIGNS[check.state]


def _title(name: str) -> str:
    return TITLES.get(name, name.replace("_", " "))


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _without_password(url: str) -> str:
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", url)


def _versions() -> Iterator[Check]:
    try:
        ours = version("flowdsl")
    except PackageNotFoundError:  # imported from a source tree
        ours = "not installed"
    yield Check("flowdsl", OK, ours, {"version": ours})
    python = platform.python_version()
    where = f"{platform.python_implementation()} on {platform.system()} {platform.machine()}"
    yield Check("python", OK, f"{python} ({where}, {sys.executable})", {"version": python})
    found = sqlite3.sqlite_version
    race = sqlite_race(sqlite3.sqlite_version_info)
    facts: dict[str, object] = {"version": found, "wal_reset_race": race}
    if race:
        text = (
            f"{found} has a known race: where several connections write, one that begins the write-ahead log "
            f"anew at the wrong instant can damage the database. It is very rare, and fixed in SQLite 3.51.3"
        )
        yield Check("sqlite", WARNING, text, facts)
    else:
        yield Check("sqlite", OK, found, facts)


def _storage(cli: Cli) -> Iterator[Check]:
    absent = missing_database(cli.url)
    if absent is not None:
        yield _no_database(cli, absent)
        return
    openable = True
    if cli.url.startswith("sqlite:"):
        name, options = sqlite_path(cli.url)
        path = Path(name).absolute()
        yield Check("storage", OK, str(path), {"path": str(path)})
        for check in sqlite_checks(path, options.get("synchronous", "full").lower()):
            # Opening an older database would migrate it, so it is not opened.
            openable &= check.state != PROBLEM and (check.name != "schema" or check.state == OK)
            yield check
    if openable:
        yield from _runs(cli)
    if cli.url.startswith(("postgresql:", "postgres:")):
        yield from _postgres(cli.url)


def _postgres(url: str) -> Iterator[Check]:
    try:
        yield from postgres_checks(url)
    except (ImportError, ValueError):
        pass  # already reported when it was opened


def _protection(app: str | None) -> Iterator[Check]:
    """How the stored data is protected by the codec of the module *app*."""
    payloads = app_payloads(app)
    signed = payloads.secret is not None
    text = "checked for damage" + (
        " and signed with FLOWDSL_SECRET_KEY" if signed else "; not signed, as FLOWDSL_SECRET_KEY is not set"
    )
    yield Check("payloads", OK, text, {"signed": signed})
    missing = protection_of(payloads).unprotected()
    whose = "" if app else " (with the default codec; --app MODULE says what your program uses)"
    said = "; ".join(missing) or "nobody without the keys can read or alter values"
    yield Check("protection", OK, said + whose, {"unprotected": missing})  # a choice, not a fault


def _no_database(cli: Cli, path: Path) -> Check:
    nearest = next(up for up in path.parents if up.exists())
    facts: dict[str, object] = {"path": str(path)}
    if cli.explicit:
        return Check("storage", PROBLEM, f"no database at {path}", facts)
    if not os.access(nearest, os.W_OK | os.X_OK):
        return Check("storage", PROBLEM, f"no database at {path}, and {nearest} cannot be written to", facts)
    return Check("storage", WARNING, f"no database at {path} yet; the first run makes it", facts)


def _runs(cli: Cli) -> Iterator[Check]:
    """Open the storage as a program does, and look for runs that nobody executes."""
    try:
        with left_out() as refused, Runtime(cli.url) as runtime:
            if not cli.url.startswith("sqlite:"):
                yield Check("storage", OK, f"{cli.url.partition('://')[0]}, reachable")
            live = list(every_run(runtime, RunFilter(status=(RunStatus.RUNNING,))))
            left = [run.id for run in live if shown_status(runtime.storage, run) == "interrupted"]
            failed = sum(1 for _ in every_run(runtime, RunFilter(status=(RunStatus.FAILED,))))
    except (FlowError, ValueError, ImportError) as error:
        yield Check("storage", PROBLEM, " ".join(str(error).split()))
        return
    if refused:
        said = "; ".join(list(refused)[:_NAMED]) + (
            f"; and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
        )
        yield Check("records", PROBLEM, f"not used: {said}", {"refused": list(refused)})
    running = len(live) - len(left)
    facts: dict[str, object] = {"running": running, "interrupted": left, "failed": failed}
    if left:
        more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
        names = ", ".join(left[:_NAMED]) + more
        text = f"{running} running, {failed} failed, {len(left)} interrupted (nobody executes them): {names}"
        yield Check("runs", WARNING, text, facts)
    else:
        yield Check("runs", OK, f"{running} running, {failed} failed, none interrupted", facts)

"""The checks of ``flowdsl doctor`` for a PostgreSQL storage. They only read; nothing is made or repaired."""

import time
from collections.abc import Iterator
from typing import Any

from flowdsl.cli._checks import OK, PROBLEM, WARNING, Check

__all__ = ["postgres_checks"]

_APART = 60.0  # seconds between two clocks; from here on a warning
_LONG = 300.0  # seconds: an older snapshot keeps dead rows from being removed
_TEST = 2.0  # seconds for a notification of our own to arrive
_DEAD = 100_000  # dead rows of a table, more than its living ones
_FILLFACTOR = 85  # of the table of runs: leases are renewed in place


def postgres_checks(url: str) -> Iterator[Check]:
    """Check the server and the schema of *url*. Ends early if the server cannot be reached."""
    import psycopg

    from flowdsl.storage.postgres.url import postgres_address

    address = postgres_address(url)
    try:
        with psycopg.connect(address.dsn, autocommit=True, connect_timeout=5) as connection:
            version = connection.info.server_version
            yield Check("postgresql", OK, f"{version // 10000}.{version % 10000}", {"version": version})
            yield _clock(connection)
            yield _listen(connection)
            yield _snapshots(connection)
            yield from _tables(connection, address.schema)
    except psycopg.Error as error:
        yield Check("postgresql", PROBLEM, " ".join(str(error).split()))


def _clock(connection: Any) -> Check:
    begun = time.time()
    ((there,),) = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchall()
    apart = there - (begun + time.time()) / 2
    facts: dict[str, object] = {"apart": round(apart, 3)}
    if abs(apart) < _APART:
        return Check("clock", OK, f"{apart:+.1f} s from this host's", facts)
    return Check(
        "clock", WARNING, f"{apart:+.0f} s from this host's; the server's is the one that counts", facts
    )


def _listen(connection: Any) -> Check:
    connection.execute("LISTEN flowdsl_doctor")
    connection.execute("SELECT pg_notify('flowdsl_doctor', '')")
    arrives = any(True for _ in connection.notifies(timeout=_TEST, stop_after=1))
    if arrives:
        return Check("listen", OK, "notifications arrive", {"arrives": True})
    text = "notifications do not arrive, as behind a pooler: waiting runs look ten times a second instead"
    return Check("listen", WARNING, text, {"arrives": False})


def _snapshots(connection: Any) -> Check:
    """A transaction or replica that has been reading for a long time keeps all dead rows."""
    ((oldest,),) = connection.execute(
        "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8 "
        "FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()"
    ).fetchall()
    facts: dict[str, object] = {"oldest": round(oldest, 1)}
    if oldest < _LONG:
        return Check("snapshots", OK, "no transaction has been open for long", facts)
    text = f"a transaction has been open for {oldest:.0f} s: rows that it may still see cannot be removed"
    return Check("snapshots", WARNING, text, facts)


def _tables(connection: Any, schema: str) -> Iterator[Check]:
    found = connection.execute(
        "SELECT s.relname, coalesce(array_to_string(c.reloptions, ' '), ''), s.n_live_tup, s.n_dead_tup "
        "FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid WHERE s.schemaname = %s",
        (schema,),
    ).fetchall()
    options = {name: text for name, text, _, _ in found}
    if "runs" not in options:
        yield Check("fillfactor", WARNING, f"no tables in schema {schema!r} yet; the first run makes them")
        return
    if f"fillfactor={_FILLFACTOR}" in options["runs"]:
        yield Check("fillfactor", OK, f"{_FILLFACTOR} for the table of runs", {"fillfactor": _FILLFACTOR})
    else:
        text = f"not {_FILLFACTOR} for the table of runs, so that each renewal of a lease writes its indexes"
        yield Check("fillfactor", WARNING, text, {"fillfactor": None})
    bloated = [name for name, _, living, dead in found if dead > max(_DEAD, living)]
    if bloated:
        text = f"more dead rows than living ones in {', '.join(bloated)}: look at autovacuum"
        yield Check("bloat", WARNING, text, {"tables": bloated})
    else:
        yield Check("bloat", OK, "dead rows are few", {"tables": []})

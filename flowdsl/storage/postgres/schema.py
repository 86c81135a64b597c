"""How the tables are made and migrated, by one of many processes that start."""

from hashlib import blake2b
from typing import Any

import psycopg

from flowdsl.errors import SchemaMismatch, StorageUnavailable
from flowdsl.storage.migrations import migrations
from flowdsl.storage.postgres.fragments import Sql

__all__ = ["prepare"]

_OLDEST = 130000


def prepare(connection: "psycopg.Connection[Any]", schema: str, quoted: Sql) -> None:
    """Make the schema, or migrate it. Raises ``SchemaMismatch`` if a newer flowdsl made it."""
    if connection.info.server_version < _OLDEST:
        raise StorageUnavailable(
            f"this PostgreSQL is version {connection.info.server_version // 10000}; "
            f"flowdsl needs 13 or newer",
            lasting=True,
        )
    ((encoding,),) = connection.execute("SHOW server_encoding").fetchall()
    if encoding != "UTF8":
        raise StorageUnavailable(f"the database has encoding {encoding}; flowdsl needs UTF8", lasting=True)
    supported = migrations("postgres")
    if _version(connection, schema, quoted) == supported[-1].version:
        return
    lock = int.from_bytes(blake2b(schema.encode(), digest_size=8).digest(), "big", signed=True)
    with connection.transaction():
        # A large table takes its time. Whoever comes meanwhile waits.
        connection.execute("SET LOCAL lock_timeout = 0")
        connection.execute("SET LOCAL statement_timeout = 0")
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (lock,))
        found = _version(connection, schema, quoted)
        if found > supported[-1].version:
            raise SchemaMismatch(
                f"schema {schema!r} has version {found}, and this flowdsl knows versions up to "
                f"{supported[-1].version}: upgrade flowdsl, or give another schema",
                found=found,
                supported=supported[-1].version,
            )
        if not found:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted}")
            connection.execute(f"CREATE TABLE {quoted}.flowdsl_schema (version bigint NOT NULL)")
            connection.execute(f"INSERT INTO {quoted}.flowdsl_schema VALUES (0)")
        for migration in supported:
            if migration.version > found:
                text = migration.sql.replace("{schema}", quoted)
                connection.execute(text.encode(connection.info.encoding))
        connection.execute(f"UPDATE {quoted}.flowdsl_schema SET version = %s", (supported[-1].version,))


def _version(connection: "psycopg.Connection[Any]", schema: str, quoted: Sql) -> int:
    there = connection.execute(
        "SELECT 1 FROM pg_tables WHERE schemaname = %s AND tablename = 'flowdsl_schema'", (schema,)
    ).fetchone()
    if there is None:
        return 0
    row = connection.execute(f"SELECT version FROM {quoted}.flowdsl_schema").fetchone()
    return int(row[0]) if row else 0

"""Databases for tests of transactional steps: the user's table ``booked`` beside the records of flowdsl."""

import sqlite3
from functools import cache
from pathlib import Path
from typing import Any

from attrs import define

from flowdsl.storage import open_storage

__all__ = ["Database", "insert", "insert_async", "open_database"]


@define
class Database:
    """A storage by its *url*, and the table beside it."""

    kind: str
    url: str

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Do it on a connection of its own; the rows."""
        if self.kind == "postgres":
            import psycopg

            with psycopg.connect(self.url.partition("?")[0] + _host(self.url), autocommit=True) as connection:
                cursor = connection.execute(statement.replace("booked", self.table))
                return cursor.fetchall() if cursor.description else []
        connection = sqlite3.connect(self.url.removeprefix("sqlite:///").partition("?")[0])
        try:
            with connection:
                return connection.execute(statement).fetchall()
        finally:
            connection.close()

    @property
    def table(self) -> str:
        """The name of the table ``booked``."""
        return table_of(self.url)

    def rows(self) -> list[Any]:
        """What is booked."""
        return sorted(row[0] for row in self.execute("SELECT name FROM booked"))


def table_of(url: str) -> str:
    """The table ``booked`` beside the storage of that URL."""
    schema = url.partition("schema=")[2].partition("&")[0]
    return f'"{schema}".booked' if schema else "booked"


def _host(url: str) -> str:
    options = [part for part in url.partition("?")[2].split("&") if part.startswith("host=")]
    return f"?{options[0]}" if options else ""


def open_database(kind: str, directory: Path) -> Database:
    """Make a database of that kind (``full`` and ``normal`` are SQLite's), with its tables."""
    if kind == "postgres":
        database = Database(kind, _one_schema())  # tables are made once, for all tests
        with open_storage(database.url) as storage:
            storage.clear()
        database.execute("DROP TABLE IF EXISTS booked; CREATE TABLE booked (name TEXT)")
        return database
    database = Database(kind, f"sqlite:///{directory}/flow.db?synchronous={kind}")
    open_storage(database.url).close()
    database.execute("CREATE TABLE booked (name TEXT)")
    return database


@cache
def _one_schema() -> str:
    from postgres_server import postgres_url

    return postgres_url()


def insert(connection: Any, table: str, name: str) -> None:
    """What the body of a transactional step does."""
    mark = "?" if isinstance(connection, sqlite3.Connection) else "%s"
    connection.execute(f"INSERT INTO {table} VALUES ({mark})", (name,))


async def insert_async(connection: Any, table: str, name: str) -> None:
    """The same in an async body: a connection of SQLite blocks there too."""
    if isinstance(connection, sqlite3.Connection):
        insert(connection, table, name)
    else:
        await connection.execute(f"INSERT INTO {table} VALUES (%s)", (name,))

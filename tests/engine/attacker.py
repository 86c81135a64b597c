"""Somebody who may write to a database, SQLite or PostgreSQL, and does not know the key."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest


class Attacker:
    """Knows the database, not the key."""

    def __init__(self, url: str) -> None:
        self.quick = url.startswith("sqlite")
        if self.quick:
            self.connection: Any = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
            self._mark, self._prefix, self._over = "?", "", ""
            self.connection.execute("PRAGMA synchronous = OFF")
            names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            columns: Callable[[str], str] = "SELECT name FROM pragma_table_info('{}')".format
            self._unique = (
                "SELECT name FROM pragma_table_info('{0}') WHERE pk UNION SELECT i.name FROM"
                " pragma_index_list('{0}') l JOIN pragma_index_info(l.name) i WHERE l.\"unique\""
            ).format
        else:
            psycopg = pytest.importorskip("psycopg")
            schema = parse_qs(urlsplit(url).query)["schema"][0]
            self.connection = psycopg.connect(url.replace(f"schema={schema}", ""), autocommit=True)
            self._mark, self._prefix, self._over = "%s", f'"{schema}".', "OVERRIDING SYSTEM VALUE"
            names = f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{schema}'"
            columns = (
                "SELECT column_name FROM information_schema.columns WHERE table_name = '{}'"
                f" AND table_schema = '{schema}' ORDER BY ordinal_position"
            ).format
            self._unique = (
                "SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)"
                f" WHERE indisunique AND indrelid = '\"{schema}\".{{}}'::regclass"
            ).format
        self.columns = {
            name: [column for (column,) in self.connection.execute(columns(name)).fetchall()]
            for (name,) in self.connection.execute(names).fetchall()
        }

    def places(self, table: str) -> list[int]:
        """The columns that say which row it is: those of unique indexes."""
        found = {name for (name,) in self.connection.execute(self._unique(table)).fetchall()}
        return [n for n, name in enumerate(self.columns[table]) if name in found]

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(f"SELECT * FROM {self._prefix}{table}").fetchall()  # type: ignore[no-any-return]

    def execute(self, statement: str) -> None:
        """Execute *statement*, in which ``{}`` stands before the name of a table."""
        self.connection.execute(statement.replace("{}", self._prefix, 1))

    @contextlib.contextmanager
    def instead(self, table: str, rows: list[tuple[Any, ...]]) -> Iterator[bool]:
        """Other *rows* in a table, for the time of the block; ``False``: the database does not take them."""
        before = self.rows(table)
        try:
            taken = self._put(table, rows)
            yield taken
        finally:
            assert self._put(table, before)

    def _put(self, table: str, rows: list[tuple[Any, ...]]) -> bool:
        cursor = self.connection.cursor()
        marks = ", ".join([self._mark] * len(self.columns[table]))
        cursor.execute("BEGIN")
        try:
            cursor.execute(f"DELETE FROM {self._prefix}{table}")
            cursor.executemany(f"INSERT INTO {self._prefix}{table} {self._over} VALUES ({marks})", rows)
        except Exception:
            cursor.execute("ROLLBACK")
            return False
        cursor.execute("COMMIT")
        return True

    def close(self) -> None:
        self.connection.close()

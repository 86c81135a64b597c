"""The campaign of claims, in its quick form."""

from .command import campaign


def test_limits_hold_while_eight_workers_claim() -> None:
    """Each run is claimed once, and no limit is exceeded at any moment."""
    result = campaign("claims", "--count", "300")
    assert result["failed"] == 0, result["failures"]
    assert result["claimed"] == 300

"""The campaign of two processes that want one run, in its quick form."""

from .command import campaign


def test_of_two_processes_one_has_the_run() -> None:
    """In a duel of each kind the owner that stood still is refused, and no step whose result was seen
    executes again."""
    result = campaign("duels", "--count", "5")
    assert result["failed"] == 0, result["failures"]
    assert result["late owners that were refused"] == 1
    assert result["bodies"] >= 5 * 4


def test_a_storage_without_epochs_is_found() -> None:
    """The oracle notices a former owner whose late records are accepted."""
    assert campaign("duels", "--plant", "no-epoch-check", "--kind", "zombie", "--count", "1", "--seed", "2")[
        "failed"
    ]

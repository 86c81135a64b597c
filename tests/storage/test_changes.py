"""Waiting for changes, by topic, within one process."""

from flowdsl.storage.changes import Changes


class Ended(Exception):
    """A waiter sleeps."""


def sleeps(changes: Changes, seen: int, topic: str) -> bool:
    """Whether somebody who has seen this version sleeps until the topic changes."""

    def pause(left: float) -> float:
        raise Ended

    try:
        changes.wait(seen, 60.0, [topic], pause)
    except Ended:
        return True
    return False


def test_a_waiter_sleeps_after_changes_that_were_told_at_once() -> None:
    """Whoever has seen changes that two threads told of at the same time sleeps until the next one."""
    changes = Changes()
    numbers = changes._numbers

    class Overtaken:
        """While the first thread takes its number, another one tells of a change."""

        def __next__(self) -> int:
            number = next(numbers)
            changes._numbers = numbers
            changes.say(["b"])
            return number

    changes._numbers = Overtaken()  # type: ignore[assignment]
    changes.say(["a"])
    for topic in "ab":
        assert sleeps(changes, changes.wait(0, 60.0, [topic]), topic)

"""What others have changed, by topic, for storages whose database does not tell."""

from flowdsl.storage.pulses import Pulses


def test_only_what_others_may_have_changed_is_looked_at() -> None:
    """A topic is looked at once for each commit of others, and is told only if its run has changed."""
    pulses, looked, now = Pulses(), [], {"a": 1, "b": 1}

    def read(run_ids: list[str]) -> list[tuple[str, int]]:
        looked.append(run_ids)
        return [(run_id, now[run_id]) for run_id in run_ids]

    assert pulses.look(["run:a", "run:b"], read) == ["run:a", "run:b"]  # nobody knows what happened before
    assert pulses.look(["run:a", "run:b"], read) == []
    now["a"] = 2
    pulses.outdate()
    assert pulses.look(["run:b"], read) == []
    assert pulses.look(["run:b", "run:a"], read) == ["run:a"]
    assert looked == [["a", "b"], ["b"], ["a"]]


def test_a_look_that_a_commit_overtakes_does_not_count() -> None:
    """If others commit while a run is being looked at, it is looked at again."""
    pulses, now = Pulses(), {"a": 1}
    pulses.look(["run:a"], lambda run_ids: now.items())
    pulses.outdate()

    def read(run_ids: list[str]) -> list[tuple[str, int]]:
        found = list(now.items())
        now["a"] = 2
        pulses.outdate()
        return found

    assert pulses.look(["run:a"], read) == []
    assert pulses.look(["run:a"], lambda run_ids: now.items()) == ["run:a"]

"""Following a run: what each look shows of it."""

from flowdsl import continue_as_new, step, workflow
from flowdsl.following import Following


def paths(look):
    """The steps among the records that a look has read."""
    return [record.path.rpartition(".")[2] for record in look.fresh if record.kind == "step"]


@step
def pack(n):
    return n


def test_a_look_shows_what_is_new(runtime):
    """The first look shows all records, the next ones what was written since, page by page. It ends with the
    run."""

    @workflow(id="w")
    def w():
        for n in range(3):
            pack(n)
            seen.append(following.look())
        return "packed"

    seen = []
    following = Following(runtime.storage, "w")
    w()
    assert [paths(look) for look in seen] == [["pack"]] * 3
    assert [(look.status, look.ended, look.anew) for look in seen] == [("running", False, False)] * 3
    last = following.look()
    assert (last.status, last.ended, last.fresh) == ("completed", True, ())

    paged = Following(runtime.storage, "w")
    pages = [paged.look(2), paged.look(2)]
    assert [paths(look) for look in pages] == [["pack", "pack"], ["pack"]]
    assert [(look.more, look.ended) for look in pages] == [(True, False), (False, True)]
    assert paths(Following(runtime.storage, "w", after=pages[0].fresh[0].seq).look()) == ["pack", "pack"]


def test_the_next_generation_is_another_journal(runtime):
    """After ``continue_as_new`` the records of earlier looks are gone, and those of the new journal are shown."""

    @workflow(id="w")
    def w(n):
        pack(n)
        seen.append(following.look())
        if n < 2:
            continue_as_new(n + 1)

    seen = []
    following = Following(runtime.storage, "w")
    w(0)
    assert [(look.anew, paths(look)) for look in seen] == [
        (False, ["pack"]),
        (True, ["pack"]),
        (True, ["pack"]),
    ]


def test_a_run_that_is_deleted_is_followed_no_more(runtime):
    """A look at a run that is gone gives nothing."""

    @workflow(id="w")
    def w():
        pass

    w()
    following = Following(runtime.storage, "w")
    assert following.look().ended
    runtime.delete("w")
    assert following.look() is None

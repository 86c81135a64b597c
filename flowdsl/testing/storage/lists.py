"""The part of the storage contract that is about finding runs: filters, pages, tags, attention."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from attrs import evolve

from flowdsl.core.records import RunFilter, Signal
from flowdsl.core.status import RunStatus
from flowdsl.storage.base import (
    AddSignal,
    AddTags,
    Attention,
    DeleteRun,
    OpenRun,
    Storage,
    TakeSignal,
    UpdateRun,
)
from flowdsl.storage.outcomes import Done, Missing
from flowdsl.testing.storage.samples import HOSTILE, a_run, a_step, open_run

__all__ = ["ListContract"]

RUNNING, FAILED, CANCELLED = RunStatus.RUNNING, RunStatus.FAILED, RunStatus.CANCELLED


class ListContract:
    """What holds for lists of runs in every storage."""

    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            (RunFilter(), "fedcba"),
            (RunFilter(newest_first=False), "abcdef"),
            (RunFilter(limit=2), "fe"),
            (RunFilter(limit=0), ""),
            (RunFilter(status=(FAILED,)), "fb"),
            (RunFilter(status=(FAILED, CANCELLED)), "fcb"),
            (RunFilter(workflow="Settlement"), "ca"),
            (RunFilter(workflow="settlement"), ""),
            (RunFilter(key="k2"), "f"),
            (RunFilter(parent="a"), "ed"),
            (RunFilter(owner=("you", "nobody")), "e"),
            (RunFilter(owner=("me", "you"), parent="a"), "ed"),
            (RunFilter(tags=("red",)), "dba"),
            (RunFilter(tags=("red", "blue")), "db"),
            (RunFilter(tags=("red", "red")), "dba"),
            (RunFilter(tags={"red": "1"}), "d"),
            (RunFilter(tags={"red": "2"}), ""),
            (RunFilter(tags={"red": "1", "blue": "2"}), "d"),
            (RunFilter(tags={}), "fedcba"),
            (RunFilter(created_after=3.0), "fedc"),
            (RunFilter(created_before=3.0), "ba"),
            (RunFilter(created_after=2.0, created_before=3.0), "b"),
            (RunFilter(after="d"), "cba"),
            (RunFilter(after="d", limit=1), "c"),
            (RunFilter(after="d", newest_first=False), "ef"),
            (RunFilter(after="d", status=(FAILED,)), "b"),
            (RunFilter(after="nobody"), ""),
            (RunFilter(text="f"), "f"),
            (RunFilter(text="EMENT"), "ca"),
            (RunFilter(text="lu"), "db"),
            (RunFilter(text="2"), "d"),
            (RunFilter(text="%"), ""),
            (RunFilter(text="_"), ""),
            (RunFilter(text="RED", limit=1), "d"),
            (RunFilter(status=(RUNNING,), workflow="Settlement", tags=("red",), limit=5), "a"),
        ],
    )
    def test_filters(self, storage: Storage, where: RunFilter, expected: str) -> None:
        """All conditions of a filter hold together, in the order asked for."""
        # c, d and e begin at the same moment, so their ids decide.
        a, b = a_run("a", workflow="Settlement", tags=("red",)), a_run("b", tags=("red", "blue"))
        c, d = a_run("c", workflow="Settlement"), a_run("d", parent="a", tags={"red": "1", "blue": "2"})
        e, f = a_run("e", parent="a", owner="you"), a_run("f", key="k2")
        times = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 3.0, "e": 3.0, "f": 4.0}
        statuses = {"b": FAILED, "c": CANCELLED, "f": FAILED}
        for run in (e, c, f, a, d, b):
            status = statuses.get(run.id, RUNNING)
            storage.commit([OpenRun(evolve(run, created_at=times[run.id], status=status), 60.0)])
        assert "".join(run.id for run in storage.list_runs(where)) == expected

    def test_pages(self, storage: Storage) -> None:
        """Page after page gives every run once, in order, though many begin at the same moment."""
        storage.commit([OpenRun(a_run(f"r{i:02}", created_at=float(i // 7)), 60.0) for i in range(40)])
        for newest_first in (True, False):
            seen: list[str] = []
            page = storage.list_runs(RunFilter(limit=6, newest_first=newest_first))
            while page:
                seen += [run.id for run in page]
                assert len(seen) <= 40, "a page begins again before `after`"
                page = storage.list_runs(RunFilter(limit=6, newest_first=newest_first, after=seen[-1]))
            assert seen == sorted((f"r{i:02}" for i in range(40)), reverse=newest_first)

    @pytest.mark.parametrize("text", HOSTILE)
    def test_filters_take_any_text_as_data(self, storage: Storage, text: str) -> None:
        """Names, tags and ids that look like code are only compared, in filters as in records."""
        open_run(storage, "plain", tags=("t",))
        open_run(storage, text, workflow=text, key=text, parent=text, owner=text, tags={text: text})
        for where in (
            RunFilter(workflow=text),
            RunFilter(key=text),
            RunFilter(parent=text),
            RunFilter(owner=(text,)),
            RunFilter(tags=(text,)),
            RunFilter(tags={text: text}),
            RunFilter(after="plain", newest_first=text < "plain", created_after=0.0),
        ):
            assert [run.id for run in storage.list_runs(where)] == [text]
        assert storage.list_runs(RunFilter(tags={text: "other"})) == []
        assert storage.attention([text])[0].run_id == text
        storage.commit([DeleteRun(text)])
        assert [run.id for run in storage.list_runs()] == ["plain"]

    def test_text_that_is_not_unicode_is_not_there(self, storage: Storage) -> None:
        """A name with a lone surrogate, as undecodable file names have it, is found nowhere; deleting it is a
        no-op."""
        open_run(storage, "r")
        text = "a\ud800"
        assert storage.get_run(text) is None
        assert storage.get_step("r", text) is None
        assert storage.get_step(text, "k") is None
        assert storage.list_steps(text) == []
        assert storage.list_signals("r", name=text) == []
        assert storage.get_memo(text) is None
        for where in (RunFilter(workflow=text), RunFilter(tags=(text,)), RunFilter(tags={text: text})):
            assert storage.list_runs(where) == []
        storage.delete_run(text)
        storage.delete_step("r", text)
        assert [run.id for run in storage.list_runs()] == ["r"]

    def test_tags_change(self, storage: Storage) -> None:
        """New tags replace the old ones, and filters follow."""
        open_run(storage, tags=("old", "both"))
        storage.commit([UpdateRun("r", {"tags": {"new": "1", "both": "2"}})])
        assert storage.list_runs(RunFilter(tags=("old",))) == []
        (run,) = storage.list_runs(RunFilter(tags=("both",)))
        assert run.tags == {"new": "1", "both": "2"}
        storage.commit([UpdateRun("r", {"tags": ()})])
        assert storage.list_runs(RunFilter(tags=("both",))) == []

    def test_tags_are_added(self, storage: Storage) -> None:
        """New tags stand beside the old ones, and filters follow. One commit may add tags several times."""
        if not storage.merges_tags:
            pytest.skip("it leaves that to the engine")
        open_run(storage, tags=("old", "both"))
        given = {"new": "1", "both": "2"}
        added = storage.commit([AddTags("r", given), AddTags("r", {"new": "3"}), AddTags("nobody", given)])
        assert added == [Done(), Done(), Missing()]
        given["new"] = "4"
        for where in (RunFilter(tags=("old",)), RunFilter(tags={"new": "3", "both": "2"})):
            (run,) = storage.list_runs(where)
            assert run.tags == {"old": "", "new": "3", "both": "2"}
        storage.commit([DeleteRun("r", tombstone=True)])
        assert storage.commit([AddTags("r", given)]) == [Missing()]

    def test_threads_that_add_tags(self, storage: Storage) -> None:
        """No tag is lost, however many add some at the same time."""
        if not storage.merges_tags:
            pytest.skip("it leaves that to the engine")
        open_run(storage)
        names = [f"{thread}-{n}" for thread in range(4) for n in range(10)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda name: storage.commit([AddTags("r", {name: "1"})]), names))
        assert [run.tags for run in storage.list_runs()] == [dict.fromkeys(names, "1")]

    def test_values_are_not_shared(self, storage: Storage) -> None:
        """Neither the mapping given nor the one returned gives access to what is stored."""
        given = {"a": "1"}
        open_run(storage, tags=given)
        given["a"] = "2"
        storage.list_runs()[0].tags["a"] = "3"  # type: ignore[index]
        storage.get_run("r").tags["a"] = "4"  # type: ignore[index, union-attr]
        assert storage.list_runs(RunFilter(tags={"a": "1"}))[0].tags == {"a": "1"}

    def test_attention(self, storage: Storage) -> None:
        """What runs must notice is read for many at once, in the order asked, without the missing."""
        for i in range(600):
            storage.commit([OpenRun(a_run(f"r{i}"), 60.0)]) if i % 100 == 0 else None
        storage.commit([UpdateRun("r0", {"cancel_requested": 7.5, "status": FAILED})])
        storage.commit([AddSignal(Signal(f"x{i}", "r100", "go")) for i in range(3)])
        storage.commit([TakeSignal("x1", a_step("r100"))])
        wanted = [f"r{i}" for i in range(600)]
        assert storage.attention(wanted) == [
            Attention("r0", 1, FAILED, 7.5, 0),
            Attention("r100", 1, RUNNING, None, 2),
            *(Attention(f"r{i}", 1, RUNNING, None, 0) for i in (200, 300, 400, 500)),
        ]
        assert storage.attention(reversed(wanted)) == storage.attention(wanted)[::-1]
        assert storage.attention([]) == []

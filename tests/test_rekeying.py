"""Re-keying: afterwards the new keys read everything, and the old ones nothing."""

import pickle
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import forked
import pytest
from postgres_server import postgres_url

from flowdsl import Queue, Retry, Runtime, Schedule, log, now, publish, receive, sleep, step, store, workflow
from flowdsl.codecs import Codec, Encrypted, JsonCodec, PickleCodec, Signed, envelope
from flowdsl.codecs.payloads import _context as payloads_context
from flowdsl.errors import CorruptPayload
from flowdsl.rekeying import rekey
from flowdsl.storage import MemoryStorage, Storage, open_storage
from flowdsl.storage.operations import Operation, PutStep, UpdateRun
from flowdsl.storage.outcomes import Outcome
from flowdsl.storage.relay import RelayStorage

OLD, NEW = "the secret of last year", "the secret of this year"


class Declined(Exception):
    """The card has no money on it."""


@step
def reserve(order: str) -> dict[str, str]:
    return {"order": order}


@step(memo=True)
def price(order: str) -> float:
    return 7.5


@step(retry=Retry(attempts=1))
def charge(order: str) -> None:
    raise Declined(order, 402)


@workflow
def charge_only(order: str) -> None:
    charge(order)


@workflow(id="order-{order}")
def sell(order: str) -> Any:
    log("selling", order=order)
    store.set("order", order)
    now()
    sleep(0)
    reserve(order)
    price(order)
    publish("progress", {"order": order})
    message = receive("how")
    message.reply({"well": order})
    refused = receive("why")
    refused.refuse(Declined("because"))
    try:
        charge(order)
    except Declined:
        return {"sold": False, "order": order}


@workflow
def fails(order: str) -> None:
    raise Declined(order)


def fill(storage: Storage, codec: Codec) -> None:
    """Store something of each kind."""
    with Runtime(
        storage, codec=codec, queues=[Queue("slow", concurrency=1)], schedules=[nightly()]
    ) as runtime:
        run = sell.start("7")
        assert run.ask("how", "is it?", timeout=60) == {"well": "7"}
        with pytest.raises(Declined):
            run.ask("why", timeout=60)
        assert run.result(timeout=60) == {"sold": False, "order": "7"}
        with pytest.raises(Declined):
            fails("8")
        sell.enqueue("9")
        assert runtime.signal("order-9", "how", ["early"])


def nightly() -> Schedule:
    return Schedule("nightly", fails, cron="0 2 * * *", args=("night",))


def read(storage: Storage, codec: Codec) -> list[Any]:
    """All values that are stored."""
    with Runtime(storage, codec=codec) as runtime:
        found: list[Any] = []
        for run in sorted(runtime.runs(limit=None), key=lambda one: one.id):
            found += [run.id, run.args, str(run.status), run.state(), list(run.logs())]
            found += [[one.result() for one in run.steps() if one.status == "completed"]]
            found += [[repr(one.error) for one in run.steps() if one.status == "failed"]]
            found += [list(run.stream("progress"))]
            if run.status == "completed":
                found += [run.result()]
            if run.status == "failed":
                found += [repr(run.exception())]
        found += [one.name for one in runtime.queues.list()]
        found += [(one.name, one.args) for one in runtime.schedules.list()]
        found += [memo.path for memo in runtime.storage.list_memos()]
        found += [price("7")]
        return found


def use(monkeypatch: pytest.MonkeyPatch, secret: str | None) -> None:
    """Set ``FLOWDSL_SECRET_KEY``, or take it away."""
    if secret is None:
        monkeypatch.delenv("FLOWDSL_SECRET_KEY", raising=False)
    else:
        monkeypatch.setenv("FLOWDSL_SECRET_KEY", secret)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """A storage of each kind."""
    urls = {"memory": lambda: "memory://", "sqlite": lambda: f"sqlite:///{tmp_path}/flow.db"}
    with open_storage(urls.get(request.param, postgres_url)()) as made:
        yield made


@pytest.mark.parametrize(
    ("old", "new", "was", "now"),
    [
        (Signed(PickleCodec(), "a"), Signed(PickleCodec(), ["b", "a"]), None, None),
        (PickleCodec(), PickleCodec(), OLD, NEW),
        (Encrypted(JsonCodec(), "a"), Encrypted(JsonCodec(), ["b", "a"]), OLD, NEW),
    ],
    ids=["the key of a codec", "the secret", "both"],
)
def test_everything_has_the_new_keys(
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
    old: Codec,
    new: Codec,
    was: str | None,
    now: str | None,
) -> None:
    """All values read as before with only the new keys, and a second time there is nothing to do."""

    use(monkeypatch, was)
    fill(storage, old)
    before = read(storage, old)
    planned = rekey(storage, new, secret=now, old_secret=was, dry_run=True)
    done = rekey(storage, new, secret=now, old_secret=was)
    assert done == planned
    assert done.rewritten > 15
    assert done.refused == ()
    use(monkeypatch, now)
    only_new = {"signed": Signed, "encrypted": Encrypted}.get(new.id.partition("+")[0])
    alone = new if only_new is None else only_new(new.inside, "b")
    assert read(storage, alone) == before
    again = rekey(storage, alone, secret=now)
    assert again.rewritten == 0
    assert again.current == done.rewritten + done.current


DIES = """
import os, signal, sys
from flowdsl.rekeying import rekey
from flowdsl.storage import open_storage
from flowdsl.storage.relay import RelayStorage

class Dies(RelayStorage):
    commits = 0

    def commit(self, operations, /):
        self.commits += 1
        if self.commits == 2 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = super().commit(operations)
        if self.commits == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

_, url, when, secret, old_secret = sys.argv
rekey(Dies(open_storage(url)), secret=secret, old_secret=old_secret)
"""


@pytest.mark.parametrize(
    ("kind", "when"), [("sqlite", "before"), ("sqlite", "behind"), ("postgres", "behind")]
)
def test_it_can_be_killed_and_run_again(
    kind: str, when: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After a kill before or after any commit re-keying goes on, and loses nothing."""
    url = f"sqlite:///{tmp_path}/flow.db" if kind == "sqlite" else postgres_url()
    use(monkeypatch, OLD)
    with open_storage(url) as storage:
        fill(storage, PickleCodec())
        before = read(storage, PickleCodec())
        planned = rekey(storage, secret=NEW, old_secret=OLD, dry_run=True)
        command = [sys.executable, "-c", DIES, url, when, NEW, OLD]
        assert forked.run(command, timeout=100).returncode == -signal.SIGKILL
        left = rekey(storage, secret=NEW, old_secret=OLD, dry_run=True)
        assert planned.rewritten > left.rewritten > 0
        assert rekey(storage, secret=NEW, old_secret=OLD).rewritten == left.rewritten
        use(monkeypatch, NEW)
        assert read(storage, PickleCodec()) == before


def test_what_no_key_fits_is_left_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """An altered record gets no new seal and is named, and all others are re-keyed."""
    storage = MemoryStorage()
    use(monkeypatch, OLD)
    fill(storage, PickleCodec())
    (run,) = [one for one in storage.list_runs() if one.id == "order-9"]
    storage.commit([UpdateRun("order-9", {"workflow": "os.system"})])
    done = rekey(storage, secret=NEW, old_secret=OLD)
    assert [line.partition(":")[0] for line in done.refused] == ["run order-9"]
    altered = storage.get_run("order-9")
    assert altered is not None
    assert altered.seal == run.seal
    use(monkeypatch, NEW)
    with Runtime(storage) as runtime:
        assert runtime.run("order-7") is not None
        with pytest.raises(CorruptPayload):
            runtime.run("order-9")


def test_what_had_no_secret_is_sealed_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records without a seal are refused, unless ``unsealed`` is given."""
    storage = MemoryStorage()
    fill(storage, PickleCodec())
    before = read(storage, PickleCodec())
    refused = rekey(storage, secret=NEW)
    assert refused.rewritten == 0
    assert len(refused.refused) > 20
    assert rekey(storage, secret=NEW, unsealed=True).refused == ()
    use(monkeypatch, NEW)
    assert read(storage, PickleCodec()) == before
    assert rekey(storage, secret=None, old_secret=NEW).refused == ()
    use(monkeypatch, None)
    assert read(storage, PickleCodec()) == before
    with pytest.raises(ValueError, match="not both"):
        rekey(storage, secret=NEW, old_secret=OLD, unsealed=True)


class Bomb:
    """Where it is unpickled, it says so."""

    loaded: list[str] = []

    def __reduce__(self) -> Any:
        return Bomb.loaded.append, ("loaded",)


def test_no_record_is_loaded() -> None:
    """The record of an exception is read only as plain data, and other data is left as it is."""
    storage = MemoryStorage()
    with Runtime(storage), pytest.raises(Declined):
        charge_only("7")
    ((run, record),) = [(run, one) for run in storage.list_runs() for one in storage.list_steps(run.id)]
    context = payloads_context(run.id, record.key, "error")
    bomb = envelope.seal("error+pickle", pickle.dumps(Bomb()), context)
    storage.commit([PutStep(record._replace(payload=bomb, seq=0))])
    done = rekey(storage, Signed(PickleCodec(), "k", accept_plain=True), secret=NEW, unsealed=True)
    assert [line.partition(":")[0] for line in done.refused] == [f"run {run.id}, step {record.key[:12]}"]
    assert Bomb.loaded == []


class Changes(RelayStorage):
    """Somebody sends a message to run ``order-9`` before each of the first commits."""

    count = 0

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        self.count += 1
        if self.count < 3:
            with Runtime(self.storage, codec=Signed(PickleCodec(), "a")) as runtime:
                cancelled = runtime.runs(workflow=fails)[0]
                cancelled.tag(seen=str(self.count))
                sell.options(id=f"late-{self.count}").enqueue("9")
        return super().commit(operations)


def test_programs_may_go_on_meanwhile() -> None:
    """What programs with both keys write meanwhile is re-keyed at once or the next time."""
    storage = MemoryStorage()
    fill(storage, Signed(PickleCodec(), "a"))
    codec = Signed(PickleCodec(), ["b", "a"])
    rekey(Changes(storage), codec)
    rekey(storage, codec)
    assert rekey(storage, Signed(PickleCodec(), "b")).rewritten == 0
    assert len(read(storage, Signed(PickleCodec(), "b"))) > 20


def test_records_of_a_release_that_sealed_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows without a seal are sealed only on request, although their payloads have the secret."""
    storage = MemoryStorage()
    use(monkeypatch, OLD)
    with monkeypatch.context() as earlier:
        earlier.setattr("flowdsl.codecs.envelope._ROW_SEALED", 0)
        earlier.setattr("flowdsl.runtime.sealed", lambda storage, payloads: storage)
        envelope.sealer.cache_clear(), envelope.opener.cache_clear()
        with Runtime(storage) as runtime:
            with pytest.raises(Declined):
                fails("8")
            sell.enqueue("9")
            runtime.signal("order-9", "how", ["early"])
    envelope.sealer.cache_clear(), envelope.opener.cache_clear()
    assert rekey(storage, secret=NEW, old_secret=OLD).rewritten == 0
    assert rekey(storage, secret=OLD, unsealed=True).refused == ()
    assert rekey(storage, secret=NEW, old_secret=OLD).refused == ()
    use(monkeypatch, NEW)
    with Runtime(storage) as runtime:
        (failed,) = runtime.runs(workflow=fails)
        assert repr(failed.exception()) == "Declined('8')"
        assert [one.name for one in runtime.storage.list_signals("order-9")] == ["how"]


def test_no_seal_is_taken_off_without_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a secret sealed records stay as they are, and with the old one, records that it does not
    fit."""
    storage = MemoryStorage()
    use(monkeypatch, OLD)
    fill(storage, PickleCodec())
    with Runtime(storage) as runtime:
        before = runtime.export("order-7")
    for options in ({}, {"unsealed": True}):
        done = rekey(storage, **options)
        assert done.rewritten == done.current == 0
        assert any("there is no secret" in line for line in done.refused)
    with Runtime(storage) as runtime:
        assert runtime.export("order-7") == before
    storage.commit([UpdateRun("order-7", {"seal": b"x" * 20})])
    done = rekey(storage, old_secret=OLD)
    assert [line for line in done.refused if line.startswith("run order-7: its seal fits neither")]

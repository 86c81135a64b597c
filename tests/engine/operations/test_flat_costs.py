"""What verbs cost does not grow with how often they were used: counted, not timed."""

from collections import Counter

from support import Relay

from flowdsl import Runtime, publish, receive, step, workflow
from flowdsl.storage import MemoryStorage
from flowdsl.storage.base import Publish, TakeSignal


class Counting(Relay):
    """Counts commits, reads of messages, and where items come to lie."""

    def __init__(self):
        super().__init__(MemoryStorage())
        self.counts = Counter()
        self.taken = []
        self.published = set()  # numbers of items; a flush and a commit that meet write some twice
        self.publishing = 0  # commits with items

    def commit(self, operations, /):
        self.counts["commit"] += 1
        items = {op.item.n for op in operations if isinstance(op, Publish)}
        self.published |= items
        self.publishing += bool(items)
        if any(isinstance(op, TakeSignal) for op in operations):
            self.taken.append(dict(self.counts))
        return self.inner.commit(operations)

    def list_signals(self, *args, **options):
        found = self.inner.list_signals(*args, **options)
        self.counts["read"] += len(found)
        return found


def test_the_last_of_many_messages_costs_what_the_first_did():
    """Each of 500 messages takes a constant number of commits and of reads."""

    @workflow(id="inbox")
    def inbox():
        return [receive("add", "remove").payload for _ in range(500)]

    storage = Counting()
    with Runtime(storage) as runtime:
        run = inbox.start()
        for n in range(500):
            run.signal(("add", "remove")[n % 2], n, key=str(n))
        assert run.result() == list(range(500))
        assert runtime.run("inbox").status == "completed"
    reads = storage.taken[-1].get("read", 0) - storage.taken[0].get("read", 0)
    assert len(storage.taken) == 500
    assert reads <= 500 * 4
    late = storage.taken[-1]["commit"] - storage.taken[400]["commit"]
    assert late <= 100 * 3 + 20  # taken, waited for, sent meanwhile; and what keeps the lease


def test_items_are_stored_with_the_next_commit():
    """10,000 items take few commits, and the items so far are durable before a body begins."""
    seen = []

    @step
    def look():
        seen.append(len(storage.published))

    @workflow
    def talkative():
        for n in range(10_000):
            publish("n", n)
        look()

    storage = Counting()
    with Runtime(storage):
        run = talkative.start()
        run.result()
        assert seen == [10_000]
        assert storage.published == set(range(1, 10_001))
        assert storage.publishing <= 2_000  # one in a tenth of a second, or one
        assert list(run.stream("n", after=9_998)) == [9_998, 9_999]

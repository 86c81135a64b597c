"""Server-sent events: what is recorded, then what happens, then the end; and no thread for each reader."""

import json
import socket
import threading
import time
from contextlib import ExitStack

from flowdsl import log, step, wait_for, workflow
from web.conftest import TOKEN
from web.test_api import count
from web.test_pages import failed


@step
def note(text):
    """Logs from inside a step."""
    log("noted", text=text)
    return text


@workflow(id="waits")
def waits():
    """One step, a wait, another step."""
    note("before")
    wait_for("go")
    note("after")
    return "done"


def events_of(text):
    """Events as (name, id, data)."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        if "event" in fields:
            found.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
    return found


class Reader:
    """Reads a stream as it comes."""

    def __init__(self, port, path, *headers):
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=60)
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {TOKEN}", *headers]
        self._connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.text = ""

    def until(self, wanted):
        """Read until this text has come."""
        while wanted not in self.text:
            chunk = self._connection.recv(1 << 16)
            assert chunk, f"the stream ended without {wanted!r}"
            self.text += chunk.decode()
        return self.text

    def rest(self):
        """Read to the end."""
        while chunk := self._connection.recv(1 << 16):
            self.text += chunk.decode()
            if "\r\n0\r\n\r\n" in self.text:
                break
        return self.text

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._connection.close()


def test_an_ended_run_is_told_at_once(client):
    """An ended run sends its row, its numbered steps, its log, and the end."""
    run = waits.start()
    run.signal("go")
    run.result()
    answer = client().get(f"/api/runs/{run.id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = events_of(answer.text)
    assert [name for name, _, _ in told] == ["run", "log", "step", "step", "log", "step", "end"]
    assert told[0][2]["status"] == "completed"
    assert [data["path"].rpartition(".")[2] for name, _, data in told if name == "step"] == [
        "note",
        "wait_for",
        "note",
    ]
    assert [number for name, number, _ in told if name == "step"] == [
        str(data["seq"]) for name, _, data in told if name == "step"
    ]
    assert told[1][2]["fields"] == {"text": "before"}


def test_a_reader_goes_on_where_it_was(client):
    """``Last-Event-ID`` skips what was sent."""
    run = count.start(30)
    run.result()
    page = client()
    steps = [
        number for name, number, _ in events_of(page.get(f"/api/runs/{run.id}/events").text) if name == "step"
    ]
    answer = page.get(f"/api/runs/{run.id}/events", headers={"Last-Event-ID": steps[9]})
    assert [number for name, number, _ in events_of(answer.text) if name == "step"] == steps[10:]
    assert page.get(f"/api/runs/{run.id}/events", headers={"Last-Event-ID": "x"}).status_code == 400


def test_more_records_than_are_read_at_once_are_all_told(client):
    """Two thousand steps are sent in order, once."""
    run = count.start(2100)
    run.result()
    told = events_of(client().get(f"/api/runs/{run.id}/events").text)
    assert len([1 for name, _, _ in told if name == "step"]) == 2100
    assert [name for name, _, _ in told][-1] == "end"


def test_a_failed_run_ends_its_stream(client):
    """A failed run ends its stream with ``end`` and its status."""
    told = events_of(client().get(f"/api/runs/{failed()}/events").text)
    assert told[-1][0] == "end"
    assert told[-1][2]["status"] == "failed"


def test_a_running_run_is_followed_to_its_end(serve):
    """A running run is followed to its end."""
    served = serve()
    run = waits.start()
    with Reader(served.port, "/api/runs/waits/events") as reader:
        reader.until('"path":"flowdsl.wait_for"')
        assert "event: end" not in reader.text
        run.signal("go")
        text = reader.rest()
    assert text.index('"completed"') < text.index("event: end")
    assert run.result() == "done"


def test_many_readers_cost_no_thread_each(serve):
    """Fifty open streams need only a few threads."""
    served = serve()
    run = waits.start()
    with ExitStack() as stack:

        def reader():
            return stack.enter_context(Reader(served.port, "/api/runs/waits/events"))

        first = reader()
        first.until("flowdsl.wait_for")
        before = threading.active_count()
        readers = [reader() for _ in range(50)]
        for one in readers:
            one.until("flowdsl.wait_for")
        assert threading.active_count() - before <= 4
        run.signal("go")
        for one in (first, *readers):
            one.until("event: end")
    run.result()


def test_the_page_closes_with_streams_open(serve):
    """The page closes while streams are open."""
    served = serve()
    run = waits.start()
    with Reader(served.port, "/api/runs/waits/events") as reader:
        reader.until("flowdsl.wait_for")
        began = time.monotonic()
        served.page.pulse.close()
        reader.rest()
        assert time.monotonic() - began < 50
    run.signal("go")
    run.result()

"""``flowdsl workers``: who lives and what they execute."""

import asyncio
import threading

from flowdsl import Runtime, workflow

from .test_json import FIELDS


def test_who_lives(url, answer, invoke):
    """A worker is listed with what it executes while it works, and not after it has ended."""
    Runtime(url).close()
    assert answer("workers") == []
    assert "no worker is alive" in invoke("workers").stderr
    begun, go = threading.Event(), threading.Event()

    @workflow(name="clerk.job")
    def job():
        begun.set()
        go.wait(60)

    def look(run_id):
        assert begun.wait(60)
        (listed,) = answer("workers")
        assert set(listed) == FIELDS["workers"]
        assert (listed["queues"], listed["concurrency"], listed["executing"]) == (["a"], 2, [run_id])
        assert run_id in invoke("workers").stdout
        go.set()

    async def work(runtime, run):
        working = asyncio.create_task(runtime.aio.work(queues=["a"], concurrency=2))
        await asyncio.to_thread(look, run.id)
        await asyncio.to_thread(run.result, 60)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    with Runtime(url) as runtime:
        asyncio.run(work(runtime, job.options(queue="a").enqueue()))
    assert answer("workers") == []

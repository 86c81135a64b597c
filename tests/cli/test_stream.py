"""``flowdsl stream``: what a run publishes on its channels."""

import json
import time

import pytest

from flowdsl.core.records import Item, Run
from flowdsl.core.status import RunStatus
from flowdsl.storage import open_storage
from flowdsl.storage.operations import Publish, UpdateRun


class Agent:
    """A run that publishes on the channel ``tokens``."""

    def __init__(self, storage):
        self.storage = storage
        storage.set_run(Run("agent-3", "shop.agent", "k", status=RunStatus.RUNNING))
        self.said = 0

    def say(self, *texts):
        """Publish these."""
        for text in texts:
            self.said += 1
            item = Item("agent-3", "tokens", self.said, b"", text, time.time())
            self.storage.commit([Publish(item)])

    def end(self):
        """The run has completed."""
        self.storage.commit(
            [UpdateRun("agent-3", {"status": RunStatus.COMPLETED, "finished_at": time.time()})]
        )


@pytest.fixture
def agent(url, folder):
    """A run that has published three items, one of them hostile."""
    (folder / ".flowdsl").mkdir()
    with open_storage(url) as storage:
        made = Agent(storage)
        made.say("'one'", "'two\x1b[31m'", "'three'")
        yield made


def test_items_are_printed_in_order(agent, invoke, answer):
    """Each item has its time and its preview, without control characters, and --after skips the first
    ones."""
    lines = invoke("stream", "agent-3", "tokens").stdout.splitlines()
    assert [line[21:] for line in lines] == ["'one'", r"'two\x1b[31m'", "'three'"]
    found = answer("stream", "agent-3", "tokens", "--after", "1")
    assert [(one["n"], one["item"]) for one in found] == [(2, "'two\x1b[31m'"), (3, "'three'")]


def test_channels_are_listed(agent, invoke, answer):
    """Without a channel the command lists the channels."""
    assert [line.split() for line in invoke("stream", "agent").stdout.splitlines()] == [
        ["channel", "items"],
        ["tokens", "3"],
    ]
    assert answer("stream", "agent-3") == [{"channel": "tokens", "items": 3}]


def test_a_channel_that_is_not_there(agent, invoke, answer):
    """An unknown channel gets a suggestion, and an empty channel is an empty list."""
    result = invoke("stream", "agent-3", "tokns")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "agent-3 has published nothing on 'tokns' (did you mean 'tokens'?)\n"
    assert answer("stream", "agent-3", "tokns") == []


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_following_ends_with_the_run(options, agent, spawn):
    """--follow prints each new item at once, one a line, until the run has ended."""
    process = spawn("stream", "agent-3", "tokens", "--follow", "--after", "2", *options)

    def read():
        line = process.stdout.readline()
        return json.loads(line)["item"] if options else line[21:].rstrip("\n")

    assert read() == "'three'"
    agent.say("'four'")
    assert read() == "'four'"
    agent.say("'five'")
    agent.end()
    assert read() == "'five'"
    assert process.communicate() == ("", "")
    assert process.returncode == 0

"""``flowdsl ui``: the line it prints, and how it ends."""

import json
import os
import signal
import subprocess
import sys
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import forked
import pytest

from flowdsl import Runtime


@pytest.fixture
def database(tmp_path):
    """A storage in a file."""
    url = f"sqlite:///{tmp_path}/flow.db"
    Runtime(url).close()
    return url


def begin(*arguments):
    """The command, once it has printed its first line; and the line."""
    process = forked.Popen(
        [sys.executable, "-m", "flowdsl", "ui", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DISPLAY": ""},
    )
    return process, process.stdout.readline()


def end(process, number):
    """Its exit code, and what else it has printed."""
    process.send_signal(number)
    rest = process.communicate(timeout=60)
    return process.returncode, *rest


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_prints_its_link_and_serves_until_it_is_told(database, number, code):
    """The command prints one line with a link, which opens the page; without the token nothing does."""
    process, line = begin("--storage", database)
    try:
        assert line.startswith("http://127.0.0.1:")
        url, _, token = line.strip().partition("?token=")
        with urlopen(Request(url, headers={"Authorization": f"Bearer {token}"})) as answer:
            assert b"<h1>Runs</h1>" in answer.read()
        with pytest.raises(HTTPError, match="403"):
            urlopen(url)
    finally:
        ended = end(process, number)
    assert ended == (code, "", "")


def test_json_prints_the_link_as_a_document(database):
    """With --json the link is one document."""
    process, line = begin("--storage", database, "--json", "--port", "0")
    try:
        while not line.rstrip().endswith("}"):
            line += process.stdout.readline()
    finally:
        end(process, signal.SIGTERM)
    assert json.loads(line)["url"].startswith("http://127.0.0.1:")


def test_a_database_that_is_not_there_is_not_made(tmp_path):
    """A missing database is one line of error with exit code 1, and is not made."""
    process, line = begin("--storage", f"sqlite:///{tmp_path}/flow.db")
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, line) == (1, "")
    assert "no database" in errors
    assert not list(tmp_path.iterdir())


def test_a_port_that_is_taken_is_an_error(database):
    """A port in use is one line of error that names it."""
    first, line = begin("--storage", database)
    try:
        port = line.partition("?")[0].rstrip("/").rpartition(":")[2]
        second, printed = begin("--storage", database, "--port", port)
        _, errors = second.communicate(timeout=60)
        assert (second.returncode, printed) == (1, "")
        assert f"port {port}" in errors
    finally:
        end(first, signal.SIGTERM)


def test_without_its_packages_one_line_says_what_to_install(database):
    """Without the extra packages one line says what to install."""
    code = "import sys; sys.modules['starlette'] = None; from flowdsl.cli import main; main()"
    command = [sys.executable, "-c", code, "ui", "--storage", database]
    done = forked.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "error: the web page needs more packages: pip install 'flowdsl[web]'\n"


def test_a_host_that_is_no_name_is_wrong_usage(database):
    """An invalid host name is wrong usage, with exit code 2."""
    process, _ = begin("--storage", database, "--allowed-host", "http://x/")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "flow.example.org" in errors

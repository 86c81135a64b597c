"""The group of commands: help, versions, errors and exit codes."""

import importlib.metadata
import os
import signal
import subprocess
import sys

import click
import pytest

from flowdsl.cli._app import COMMANDS, cli
from flowdsl.errors import StorageFull


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_has_examples(name, invoke):
    """The help of each command explains it, shows an example, and exits with 0."""
    result = invoke(*([name] if name else []), "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert f"flowdsl {name}" in result.stdout.partition("Example")[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_common_options(name):
    """Each command takes --storage, --json, --traceback, and --debug as another name of the last."""
    command = cli.get_command(click.Context(cli), name)
    options = {option for param in command.params for option in param.opts}
    assert {"--storage", "--json", "--traceback", "--debug"} <= options


def test_version(invoke):
    """--version prints the installed version."""
    assert invoke("--version").stdout == f"flowdsl {importlib.metadata.version('flowdsl')}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["runs", "--status", "done"],
        ["runs", "--limit", "0"],
        ["runs", "--limit", "many"],
        ["runs", "--since", "yesterday"],
        ["runs", "--nonsense"],
        ["runs", "--storage", "flow.db"],
        ["runs", "--storage", "sqlite://flow.db"],
        ["show"],
        ["nonsense"],
        ["prune"],
        ["delete"],
    ],
)
def test_wrong_usage_is_explained_with_exit_code_2(arguments, fault):
    """Wrong usage gives one line that explains it and one line that names the help, and no result."""
    assert "\nnext: flowdsl" in (said := fault(*arguments, code=2))
    assert said.endswith(" --help\n")
    assert "integer range" not in said


def test_no_command_shows_the_help(invoke):
    """``flowdsl`` without a command prints the help."""
    result = invoke()
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == invoke("--help").stdout


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (StorageFull("no space left"), 1, "error: no space left\n"),
        (KeyError("x"), 1, "error: KeyError: 'x'\nnext: run it again with --traceback to see where\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_are_one_line(raised, code, said, shop, invoke, monkeypatch):
    """Any error is one line without a traceback, and Ctrl-C prints nothing."""
    shop.sell("x")

    def fail(*_):
        raise raised

    monkeypatch.setattr("flowdsl.cli.runs.print_runs", fail)
    result = invoke("runs")
    raised.__traceback__ = None  # the table of cases would keep this shop alive, beside the next one
    assert (result.exit_code, result.stdout, result.stderr.lstrip("\n")) == (code, "", said)


def test_traceback_shows_where(shop, invoke, monkeypatch):
    """--traceback, or --debug, adds the traceback, before or after the command."""
    monkeypatch.setattr("flowdsl.cli.runs.print_runs", lambda *_: 1 / 0)
    shop.sell("x")
    for arguments in (["runs", "--traceback"], ["--traceback", "runs"], ["runs", "--debug"]):
        result = invoke(*arguments)
        assert result.exit_code == 1
        assert "Traceback" in result.stderr
        assert "error: ZeroDivisionError: " in result.stderr
        assert "FLOWDSL_TRACEBACK" not in os.environ  # whoever called the command goes on as before


def test_ctrl_c_at_a_question(shop, spawn, answer):
    """Ctrl-C at a yes-or-no question exits with 130 and does nothing."""
    run = shop.sell("x")
    process = spawn("delete", run.id, stdin=subprocess.PIPE)
    seen = ""
    while "[y/N]" not in seen:
        seen += process.stderr.read(1)
    process.send_signal(signal.SIGINT)
    process.stdin.close()  # a signal just before the system call that reads does not end it
    assert process.wait() == 130
    assert len(answer("runs")) == 2


def test_the_library_does_not_import_the_command_line():
    """``import flowdsl`` loads neither click nor rich, and a command does not load the modules of other
    commands."""
    code = "import flowdsl, sys; assert not {'click', 'rich', 'flowdsl.cli'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = (
        "import sys\nfrom flowdsl.cli._app import cli\ntry: cli(['runs', '--help'])\nexcept SystemExit: pass\n"
        "assert not {'flowdsl.cli.doctor', 'flowdsl.cli.resume'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_the_entry_point_is_installed(shop, folder):
    """The installed program ``flowdsl`` is this package."""
    (found,) = importlib.metadata.entry_points(group="console_scripts", name="flowdsl")
    assert found.value == "flowdsl.cli:main"


def test_the_package_is_a_program_too():
    """``python -m flowdsl`` works if the script is not on the path."""
    done = subprocess.run(
        [sys.executable, "-m", "flowdsl", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("flowdsl")


def test_a_mistyped_command_is_met_with_the_nearest(invoke):
    """A mistyped command gets the nearest one as a suggestion."""
    assert "error: no command 'shw' (did you mean 'show'?)\n" in invoke("shw", "order-7").stderr


def test_ctrl_c_while_the_command_is_loaded_ends_quietly():
    """Ctrl-C while a command is being loaded exits with 130 and prints no traceback."""
    program = """
import sys

class Pressed:
    def find_spec(self, name, path=None, target=None):
        if name == "rich.console":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Pressed())
from flowdsl.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")

"""What a person would do next with a run: commands to paste into a shell.

=================================  =========================
a run that                         is helped by
=================================  =========================
has failed and can be retried      ``flowdsl retry``
is interrupted                     ``flowdsl resume``
has a step in doubt                ``flowdsl resolve``
waits for a message                ``flowdsl signal``
has ended otherwise, or executes   nothing
=================================  =========================
"""

import shlex
from collections.abc import Iterable, Sequence

from flowdsl.core.records import Run, Step
from flowdsl.core.status import StepStatus
from flowdsl.core.views import extra_of

__all__ = ["advice", "awaited_names", "in_doubt", "module_of", "shell_line"]

_DIGITS = 12  # digits of a key, where a step's name fits several steps


def advice(run: Run, status: str, steps: Iterable[Step], tail: Sequence[str] = ()) -> list[list[str]]:
    """The commands for *run*, each as a list of arguments. There are none if it is settled or simply
    executes.

    *status* is the shown one, which may be ``interrupted``. *steps* are the records of the run; only pending
    ones count. *tail* are further arguments of each command, such as ``("--storage", url)``.

    >>> advice(Run("order-7", "shop.checkout", "k"), "interrupted", [])
    [['flowdsl', 'resume', 'order-7', '--app', 'shop']]
    """
    app = ["--app", module_of(run.workflow)]
    if status == "failed":
        return [["flowdsl", "retry", run.id, *app, *tail]] if run.retryable else []
    if status not in ("interrupted", "running"):
        return []
    pending = [step for step in steps if step.status is StepStatus.PENDING]
    doubtful = [step for step in pending if in_doubt(step)] if status == "interrupted" else []
    if doubtful:
        return [
            ["flowdsl", "resolve", run.id, _meaning(step, doubtful), *said, *tail]
            for step in doubtful
            for said in (("--result", "null"), ("--error", "it failed"), ("--rerun",))
        ]
    found = [["flowdsl", "resume", run.id, *app, *tail]] if status == "interrupted" else []
    names = {name: None for step in pending for name in awaited_names(step)}
    return found + [["flowdsl", "signal", run.id, name, *tail] for name in names]


def shell_line(command: Iterable[str]) -> str:
    """A command as one line for a shell.

    >>> shell_line(["flowdsl", "signal", "order 7", "paid"])
    "flowdsl signal 'order 7' paid"
    """
    return " ".join(map(shlex.quote, command))


def in_doubt(step: Step) -> bool:
    """Whether a record says that its step was executing, and must not execute again unasked."""
    return step.kind == "step" and step.status is StepStatus.PENDING and bool(extra_of(step).get("intent"))


def awaited_names(step: Step) -> list[str]:
    """The names of the messages that a waiting step would take."""
    if step.kind not in ("wait", "receive") or step.status is not StepStatus.PENDING:
        return []
    facts = extra_of(step)
    names = facts.get("signals") or facts.get("names") or facts.get("signal") or []
    return [names] if isinstance(names, str) else [name for name in names if isinstance(name, str)]


def module_of(workflow: str) -> str:
    """The module that probably holds a workflow of this path, in the form that ``--app`` takes.

    >>> module_of("shop.orders.Desk.checkout"), module_of("checkout")
    ('shop.orders', 'MODULE')
    """
    module: list[str] = []
    for part in workflow.split(".")[:-1]:
        if part == "__main__" or not part.isidentifier() or part[0].isupper():
            break
        module.append(part)
    return ".".join(module) or "MODULE"


def _meaning(step: Step, among: Sequence[Step]) -> str:
    """The shortest text that identifies *step*: its name, or the beginning of its key."""
    name = step.path.rpartition(".")[2]
    alike = sum(other.path.rpartition(".")[2] == name for other in among)
    return name if alike == 1 else step.key[:_DIGITS]

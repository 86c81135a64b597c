"""``@workflow``, ``@step`` and ``@on``, and the objects that they make of functions."""

from flowdsl.decorators.marks import on, step, workflow
from flowdsl.decorators.steps import Step
from flowdsl.decorators.workflows import Workflow

__all__ = ["Step", "Workflow", "on", "step", "workflow"]

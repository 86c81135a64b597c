"""One execution of a step's body: its number, when it began, and the frame that it executes in."""

from flowdsl.engine.call import Call
from flowdsl.engine.execution import Frame
from flowdsl.engine.heart import Heart
from flowdsl.engine.scope import Scope, StepView

__all__ = ["Attempt"]


class Attempt(Frame):
    """The *number*-th attempt of a step. ``began`` is in seconds since the epoch. ``duration`` is in seconds,
    once the body has ended.

    Each call of a step makes one. A view for hooks and ``current_step()`` is made only when one of them
    looks.
    """

    __slots__ = ("_details", "began", "call", "duration", "heart", "number")

    def __init__(
        self, call: Call, number: int, is_async: bool, heart: Heart | None = None, tried: bool = False
    ) -> None:
        run = self.run = call.run
        self.call = call
        self.number = number
        self.heart = heart
        self.scope = Scope(
            call.body_scope() if call.generation else call.key, call.scope, is_async, not tried, tried
        )
        self.is_async = is_async
        self.abandoned = self.callback = self.transacts = False
        self._step: StepView | None = None
        self._details = None if heart is None else heart.details  # what the last attempt said
        self.began: float = run.engine.clock.now()
        self.duration: float | None = None

    @property
    def step(self) -> StepView:
        """The attempt, as hooks see it."""
        view = self._step
        if view is None:
            run, call = self.run, self.call
            view = self._step = StepView(
                run.id, call.key, call.operation.path, call.operation.mode, self.number, self.began,
                self.duration, call.generation, self._details, origin=run.origin, heart=self.heart,
            )  # fmt: skip
        return view

    def ended(self) -> None:
        """The body has ended."""
        self.duration = self.run.engine.clock.now() - self.began
        if self._step is not None:
            self._step.duration = self.duration

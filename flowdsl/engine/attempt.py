"""One execution of a step's body: its number, when it began, and the frame that it executes in."""

from threading import get_ident
from typing import Self

from flowdsl.engine.call import Call
from flowdsl.engine.execution import Frame
from flowdsl.engine.heart import Heart
from flowdsl.engine.scope import Scope, StepView, control
from flowdsl.engine.user import Value

__all__ = ["Attempt"]


class Attempt(Frame):
    """The *number*-th attempt of a step. ``began`` is in seconds since the epoch. ``duration`` is in seconds,
    once the body has ended.

    Each call of a step makes one. A view for hooks and ``current_step()`` is made only when one of them
    looks, and a scope only when the body makes a durable call. ``opened`` is the scope, once it was made.
    """

    __slots__ = ("_details", "_home", "_tried", "began", "call", "duration", "heart", "number", "opened")

    call: Call
    number: int
    began: float
    duration: float | None
    heart: Heart | None
    opened: Scope | None
    _details: Value
    _home: object
    _tried: bool

    def begin(
        self, call: Call, number: int, is_async: bool, heart: Heart | None = None, tried: bool = False
    ) -> Self:
        """Let this new object be the *number*-th attempt of *call*, which begins now. Returns itself. (An
        ``__init__`` would take three times as long.)"""
        run = self.run = call.run
        self.call = call
        self.number = number
        self.heart = heart
        self.is_async = is_async
        self.abandoned = self.callback = self.transacts = False
        self.opened = self.duration = self._step = self._home = None
        self._tried = tried
        self._details = None if heart is None else heart.details  # what the last attempt said
        self.began = run.engine.now()
        return self

    @property
    def scope(self) -> Scope:  # type: ignore[override]  # made when somebody looks
        """Where the calls of the body are counted."""
        return self.opened or self._open()

    def _open(self) -> Scope:
        with self.run.lock:  # two threads of the body may make its first calls
            if self.opened is None:
                call, tried = self.call, self._tried
                self.opened = Scope(
                    call.body_scope(), call.scope, self.is_async, not tried, tried, self._home
                )
            return self.opened

    def entered(self) -> None:
        """The calling flow of control executes the body. The call knows the task that awaits it. A submitted
        call is executed by another one."""
        call = self.call
        if not self.is_async:
            self._home = get_ident()
        else:
            self._home = control(True) if call.submitted or call.queued else call.flow
        if self.opened is not None:
            self.opened.entered()

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
        self.duration = self.run.engine.now() - self.began
        if self._step is not None:
            self._step.duration = self.duration

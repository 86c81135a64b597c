"""What really happened in all executions of a program: kept outside of every storage, so a death does not touch it."""

import threading
from typing import Any

from attrs import define, field
from grammar import Program, Slot

__all__ = ["World", "meet", "world"]


@define(eq=False)
class World:
    """What is noted of every program: what callers saw, and what was *wrong*, in words."""

    program: Program = ()
    process: Any = None
    wrong: list[str] = field(factory=list)
    seen: dict[Slot, Any] = field(factory=dict)
    lock: Any = field(factory=threading.RLock)

    @property
    def dead(self) -> bool:
        """Whether what is noted now comes from a process that has died."""
        return self.process is not None and self.process.dead

    def saw(self, slot: Slot, value: Any) -> None:
        """The caller at *slot* sees *value*, which must be the same ever after."""
        with self.lock:
            if self.dead:
                return
            if self.seen.setdefault(slot, value) != value:
                self.wrong.append(f"{slot} was seen as {self.seen[slot]} and then as {value}")


_world: Any = World()


def meet(new: Any) -> Any:
    """Let bodies note in the world *new*, which is returned."""
    global _world
    _world = new
    return new


def world() -> Any:
    """The world of the program that is executing."""
    return _world

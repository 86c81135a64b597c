"""``%load_ext flowdsl.notebook``: shows runs live in every cell, and notices redefined steps."""

from contextlib import ExitStack
from typing import Any

from flowdsl.decorators.shown import defined_steps, recorded_otherwise
from flowdsl.drawing.definitions import changed_html, changed_text
from flowdsl.notebook.watching import live, show

__all__ = ["load_ipython_extension", "unload_ipython_extension"]


class _Extension:
    """Called before and after each cell."""

    def __init__(self) -> None:
        self._around: ExitStack | None = None
        self._before: dict[str, Any] = {}
        self._said: set[tuple[str, str]] = set()

    def begin(self, *_: Any) -> None:
        """A cell is about to be executed."""
        self.end_live()
        self._before = defined_steps()
        self._around = ExitStack()
        self._around.enter_context(live())

    def end(self, *_: Any) -> None:
        """A cell was executed."""
        self.end_live()
        now = defined_steps()
        fresh = {path: defn for path, defn in now.items() if self._before.get(path) is not defn}
        unsaid = {path: defn for path, defn in fresh.items() if (path, defn.source) not in self._said}
        self._said |= {(path, defn.source) for path, defn in unsaid.items()}
        found = recorded_otherwise(unsaid) if unsaid else {}
        if found:
            show({"text/html": changed_html(found), "text/plain": changed_text(found)})

    def end_live(self) -> None:
        """End the live pictures of the cell; their last state stays."""
        around, self._around = self._around, None
        if around is not None:
            around.close()


_loaded: _Extension | None = None


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext flowdsl.notebook``."""
    global _loaded
    if _loaded is not None:
        return
    _loaded = _Extension()
    shell.events.register("pre_run_cell", _loaded.begin)
    shell.events.register("post_run_cell", _loaded.end)


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext flowdsl.notebook``."""
    global _loaded
    if _loaded is None:
        return
    shell.events.unregister("pre_run_cell", _loaded.begin)
    shell.events.unregister("post_run_cell", _loaded.end)
    _loaded.end_live()
    _loaded = None

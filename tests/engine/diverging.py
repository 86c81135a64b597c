"""What the tests of divergence share: a world that may change between two executions of a body."""

import pytest
from support import Flavour

__all__ = ["World", "interrupted"]


class World:
    """What a body reads from outside, and where it stops."""

    def __init__(self, *values):
        self.values = values
        self.stop = True

    def maybe_stop(self):
        if self.stop:
            self.stop = False
            raise KeyboardInterrupt


def interrupted(flavour: Flavour, w, *args):
    """Call *w*, which stops."""
    with pytest.raises(KeyboardInterrupt):
        flavour.call(w, *args)

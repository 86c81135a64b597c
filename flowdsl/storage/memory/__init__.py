"""The storage in the memory of one process: for tests, and for runs that need not outlive it.

It is also the reference. It is short enough to be read as the meaning of each operation, and the other
backends must agree with it (see ``flowdsl.testing.storage.contract``).
"""

from flowdsl.storage.memory.storage import MemoryStorage

__all__ = ["MemoryStorage"]

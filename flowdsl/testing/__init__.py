"""What users test their workflows with."""

from flowdsl.testing.clock import VirtualClock

__all__ = ["VirtualClock"]

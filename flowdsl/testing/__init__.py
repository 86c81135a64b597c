"""Tools for users who test their workflows. Names are imported at their first use."""

from typing import TYPE_CHECKING

from flowdsl.first_use import from_homes

if TYPE_CHECKING:
    from flowdsl.testing.clock import VirtualClock
    from flowdsl.testing.crash import CrashingStorage, EffectLog, SimulatedCrash
    from flowdsl.testing.executions import Effects, Execution, effects
    from flowdsl.testing.fixtures import fresh_runtime, with_storage
    from flowdsl.testing.history.check import HistoryMismatch, HistoryReport, check_history
    from flowdsl.testing.kill import KillReport, kill_after
    from flowdsl.testing.replay.check import ReplayMismatch, ReplayReport, check_replay
    from flowdsl.testing.replay.decorator import replay_test
    from flowdsl.testing.storage.agreement import StorageMachine
    from flowdsl.testing.storage.contract import StorageContract

_HOMES = {
    "CrashingStorage": "crash",
    "EffectLog": "crash",
    "Effects": "executions",
    "Execution": "executions",
    "HistoryMismatch": "history.check",
    "HistoryReport": "history.check",
    "KillReport": "kill",
    "ReplayMismatch": "replay.check",
    "ReplayReport": "replay.check",
    "SimulatedCrash": "crash",
    "StorageContract": "storage.contract",
    "StorageMachine": "storage.agreement",
    "VirtualClock": "clock",
    "check_history": "history.check",
    "check_replay": "replay.check",
    "effects": "executions",
    "fresh_runtime": "fixtures",
    "kill_after": "kill",
    "replay_test": "replay.decorator",
    "with_storage": "fixtures",
}

__all__ = [
    "CrashingStorage",
    "EffectLog",
    "Effects",
    "Execution",
    "HistoryMismatch",
    "HistoryReport",
    "KillReport",
    "ReplayMismatch",
    "ReplayReport",
    "SimulatedCrash",
    "StorageContract",
    "StorageMachine",
    "VirtualClock",
    "check_history",
    "check_replay",
    "effects",
    "fresh_runtime",
    "kill_after",
    "replay_test",
    "with_storage",
]


__getattr__ = from_homes(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

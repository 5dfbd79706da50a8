"""The same measurements during somebody else's training: head, step -> Observation, alarms."""

from collapse_audit.monitor.adapters import lightning_callback, trainer_callback
from collapse_audit.monitor.observation import Alarm, BranchState, Observation
from collapse_audit.monitor.prototype_monitor import PrototypeMonitor

__all__ = [
    "Alarm",
    "BranchState",
    "Observation",
    "PrototypeMonitor",
    "lightning_callback",
    "trainer_callback",
]

"""Many checkpoints of one run -> RunHistory: what became of each head, and when."""

from collapse_audit.history.changes import ONSET_SHARE, Merge, find_merges, find_onset
from collapse_audit.history.measuring import audit_history, follow_history
from collapse_audit.history.results import HeadHistory, RunCheckpoint, RunHistory
from collapse_audit.history.run_files import RunFile, find_checkpoints, newest_checkpoint

__all__ = [
    "ONSET_SHARE",
    "HeadHistory",
    "Merge",
    "RunCheckpoint",
    "RunFile",
    "RunHistory",
    "audit_history",
    "find_checkpoints",
    "find_merges",
    "find_onset",
    "follow_history",
    "newest_checkpoint",
]

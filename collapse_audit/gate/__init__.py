"""Reports against baselines and limits: report, thresholds -> Verdict; heads side by side."""

from collapse_audit.gate.checking import DEFAULT_THRESHOLDS, check, require_gates
from collapse_audit.gate.comparison import HeadsSideBySide, compare
from collapse_audit.gate.files import parse_report, read_report, write_report
from collapse_audit.gate.metrics import ALIASES, METRICS, find_metric
from collapse_audit.gate.pairing import DIFFERENCES, Difference, no_head
from collapse_audit.gate.regrouping import compare_groups
from collapse_audit.gate.settings import MISSING_BASELINE, find_settings, read_settings
from collapse_audit.gate.thresholds import Change, Gate, Threshold, parse_threshold
from collapse_audit.gate.verdict import Verdict

__all__ = [
    "ALIASES",
    "DEFAULT_THRESHOLDS",
    "DIFFERENCES",
    "METRICS",
    "MISSING_BASELINE",
    "Change",
    "Difference",
    "Gate",
    "HeadsSideBySide",
    "Threshold",
    "Verdict",
    "check",
    "compare",
    "compare_groups",
    "find_metric",
    "find_settings",
    "no_head",
    "parse_report",
    "parse_threshold",
    "read_report",
    "read_settings",
    "require_gates",
    "write_report",
]

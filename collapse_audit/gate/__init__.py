"""Reports against baselines and limits: report, thresholds -> Verdict; heads side by side."""

from collapse_audit.gate.checking import check
from collapse_audit.gate.comparison import HeadsSideBySide, compare
from collapse_audit.gate.verdict import Verdict

__all__ = ["HeadsSideBySide", "Verdict", "check", "compare"]

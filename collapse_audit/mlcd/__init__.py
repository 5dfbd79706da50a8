"""Marginal latent class distribution: features or logits -> MLCDAccumulator -> MLCD.

The features themselves: FeatureAccumulator -> FeatureSpread.
"""

from collapse_audit.mlcd.accumulator import MLCDAccumulator
from collapse_audit.mlcd.features import FeatureAccumulator, FeatureSpread
from collapse_audit.mlcd.result import MLCD
from collapse_audit.mlcd.statistics import Divergences, LabelAgreement, Usage

__all__ = [
    "MLCD",
    "Divergences",
    "FeatureAccumulator",
    "FeatureSpread",
    "LabelAgreement",
    "MLCDAccumulator",
    "Usage",
]

"""Marginal latent class distribution: features or logits -> MLCDAccumulator -> MLCD."""

from collapse_audit.mlcd.accumulator import MLCDAccumulator
from collapse_audit.mlcd.result import MLCD
from collapse_audit.mlcd.statistics import Divergences, LabelAgreement, Usage

__all__ = ["MLCD", "Divergences", "LabelAgreement", "MLCDAccumulator", "Usage"]

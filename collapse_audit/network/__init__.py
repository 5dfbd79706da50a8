"""Images, features or logits through a head, batch by batch."""

from collapse_audit.network.datasets import Samples, open_samples
from collapse_audit.network.head_model import HeadModel, head_model_of, load_head_model
from collapse_audit.network.measurement import cached_features, measure_mlcd
from collapse_audit.network.preprocessing import Preprocessing, preprocessing_for, profiles

__all__ = [
    "HeadModel",
    "Preprocessing",
    "Samples",
    "cached_features",
    "head_model_of",
    "load_head_model",
    "measure_mlcd",
    "open_samples",
    "preprocessing_for",
    "profiles",
]

"""Images, features or logits through a head, batch by batch."""

from collapse_audit.network.datasets import open_samples
from collapse_audit.network.feature_measurement import measure_features
from collapse_audit.network.head_model import HeadModel, load_head_model
from collapse_audit.network.image_model import BackboneModel, load_backbone
from collapse_audit.network.measurement import measure_mlcd

__all__ = [
    "BackboneModel",
    "HeadModel",
    "load_backbone",
    "load_head_model",
    "measure_features",
    "measure_mlcd",
    "open_samples",
]

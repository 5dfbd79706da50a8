"""Checkpoints: named tensors -> heads found by structure -> Prototypes."""

"""Checkpoint files: bytes -> heads found -> Prototypes."""

"""Containers: bytes -> named tensors, the same for a file here, a shard, and an address."""

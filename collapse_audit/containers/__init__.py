"""Containers: bytes -> named tensors, the same for a file here, a shard, and an address.

Nothing that a file names is ever executed or imported, torch is not needed, and of any file only
its index and the tensors asked for are read.
"""

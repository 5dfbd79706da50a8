"""Random numbers of a run: functions of seed and step alone, so that runs can be resumed."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from collapse_audit.training.config import HeadTrainingConfig


def generator(purpose: str, seed: int, number: int = 0) -> torch.Generator:
    """A CPU generator for one purpose at one step or epoch, independent of what else was drawn."""
    digest = hashlib.sha256(f"{purpose}/{seed}/{number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def batch_index(n: int, config: HeadTrainingConfig, iteration: int) -> Tensor:
    """Samples of one step: epochs are permutations, the last incomplete batch is dropped."""
    epoch, position = divmod(iteration, max(1, n // config.batch_size))
    order = torch.randperm(n, generator=generator("order", config.seed, epoch))
    return order[position * config.batch_size :][: config.batch_size]

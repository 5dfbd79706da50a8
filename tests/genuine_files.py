"""Checkpoints with the layout of facebookresearch/dino's main_dino.py, written by torch.save."""

from __future__ import annotations

import argparse
import io
from typing import Any

import numpy as np
import torch


def prototypes(k: int, d: int, unique: int, seed: int) -> torch.Tensor:
    """Rows that are scaled copies of ``unique`` random directions."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((unique, d))
    rows = np.concatenate([np.arange(unique), rng.integers(0, unique, k - unique)])
    scales = rng.uniform(0.5, 2.0, (k, 1))
    return torch.from_numpy((directions[rows] * scales).astype(np.float32))


def dino_checkpoint(
    k: int = 256,
    d: int = 16,
    *,
    teacher_unique: int = 20,
    width: int = 32,
    blocks: int = 3,
    **options: Any,
) -> bytes:
    """Bytes of a full training checkpoint: student, teacher, optimiser and arguments."""
    generator = torch.Generator().manual_seed(0)

    def network(prefix: str, unique: int, seed: int) -> dict[str, torch.Tensor]:
        state = {
            f"{prefix}backbone.blocks.{i}.mlp.fc1.weight": torch.randn(
                width, width, generator=generator
            )
            for i in range(blocks)
        }
        state[f"{prefix}head.mlp.0.weight"] = torch.randn(width, width, generator=generator)
        state[f"{prefix}head.last_layer.weight_g"] = torch.ones(k, 1)
        state[f"{prefix}head.last_layer.weight_v"] = prototypes(k, d, unique, seed)
        return state

    student = network("module.", 30, 1)
    moments = {
        i: {"step": 7, "exp_avg": torch.zeros_like(t), "exp_avg_sq": torch.ones_like(t)}
        for i, t in enumerate(student.values())
    }
    checkpoint = {
        "student": student,
        "teacher": network("", teacher_unique, 2),
        "optimizer": {"state": moments, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999)}]},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", out_dim=k, lr=np.float64(0.0005)),
    }
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer, **options)
    return buffer.getvalue()

"""Augmented views of small images."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def augment(images: Tensor, strength: float, noise: float, draw: torch.Generator) -> Tensor:
    """Random affine map, contrast and noise for every image, in [0, 1] (n x 1 x h x w)."""
    # At strength 1: rotation by up to 15 degrees, shift by up to an eighth of the side, scale and
    # shear by up to 15 %, contrast by up to 20 %, all uniform. ``noise`` is a standard deviation.
    n = len(images)
    amount = (torch.rand(n, 7, generator=draw) * 2 - 1) * strength
    angle = amount[:, 0] * math.pi / 12
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0] = angle.cos() * (1 + 0.15 * amount[:, 1])
    matrix[:, 1, 1] = angle.cos() * (1 + 0.15 * amount[:, 2])
    matrix[:, 0, 1] = -angle.sin() + 0.15 * amount[:, 3]
    matrix[:, 1, 0] = angle.sin()
    matrix[:, :, 2] = 0.25 * amount[:, 4:6]  # the side is 2 in the units of affine_grid
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, align_corners=False)
    moved = moved * (1 + 0.2 * amount[:, 6])[:, None, None, None]
    return moved + noise * torch.randn(moved.shape, generator=draw)

"""Cached patch tokens: what the iBOT term is trained on when a file of features holds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from collapse_audit.errors import ParameterError, SourceError
from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.random_streams import batch_index

_NAMES = ("tokens", "masked_tokens", "token_mask")


@dataclass(frozen=True, slots=True, eq=False)
class PatchTokens:
    """Tokens of a frozen backbone for every sample, of the whole and of the masked image."""

    whole: Tensor  # of the whole image, which the teacher sees (n x tokens x width)
    masked: Tensor  # of the image with masked patches, which the student sees (likewise)
    mask: Tensor  # which patches were masked (n x tokens, bool)

    def batch(self, config: HeadTrainingConfig, iteration: int) -> PatchTokens:
        """Tokens of the samples of one step, the same as those of the views."""
        index = batch_index(len(self.mask), config, iteration)
        return PatchTokens(self.whole[index], self.masked[index], self.mask[index])

    def to(self, device: torch.device) -> PatchTokens:
        """The same tokens on a device."""
        return PatchTokens(self.whole.to(device), self.masked.to(device), self.mask.to(device))


def tokens_of(
    config: HeadTrainingConfig, arrays: dict[str, npt.NDArray[Any]], n: int, width: int, path: Path
) -> PatchTokens | None:
    """The tokens in the arrays of a file, for the first n samples; ``None`` if it holds none."""
    present = [name for name in _NAMES if name in arrays]
    if not present:
        return None
    if missing := [name for name in _NAMES if name not in arrays]:
        raise SourceError(
            f"{path}: holds {', '.join(present)}, but no {', '.join(missing)}.",
            hint="The patch term needs all three; leave all three out to train without it.",
        )
    if config.vmf:
        raise ParameterError(
            f"{path}: holds patch tokens, whose term has no von Mises-Fisher normaliser.",
            hint="Train with `vmf=False`, or leave the tokens out of the file.",
        )
    whole, masked, mask = (arrays[name] for name in _NAMES)
    fits = whole.shape == masked.shape == (*mask.shape, width) and len(mask) >= n
    if not fits or mask.dtype != np.bool_ or {whole.dtype.kind, masked.dtype.kind} != {"f"}:
        shapes = ", ".join(f"{name} {arrays[name].shape} {arrays[name].dtype}" for name in _NAMES)
        raise SourceError(
            f"{path}: {shapes} do not fit {n} samples of width {width}.",
            hint="Tokens are n x tokens x width floats, the mask n x tokens bool.",
        )
    whole, masked = (np.ascontiguousarray(part[:n], dtype=np.float32) for part in (whole, masked))
    if not (np.isfinite(whole).all() and np.isfinite(masked).all()):
        raise SourceError(
            f"{path}: tokens hold NaN or infinite values.", hint="Extract them again, in float32."
        )
    return PatchTokens(
        whole=torch.from_numpy(whole),
        masked=torch.from_numpy(masked),
        mask=torch.from_numpy(mask[:n].copy()),
    )

"""Images in full size, cropped anew in every step: global and local views, as in DINO."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from collapse_audit.errors import ParameterError, SourceError
from collapse_audit.network.datasets import integers_of
from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.random_streams import batch_index, generator


@dataclass(frozen=True, slots=True, eq=False)
class ImageData:
    """Images to train a timm backbone on; the same protocol as ``TrainingData``."""

    pixels: Tensor  # training images (n x channels x height x width, uint8)
    train: Tensor  # the same, resized and scaled to [-1, 1], for kNN and probes
    test: Tensor  # held-out images, likewise; empty if there are none
    train_labels: npt.NDArray[np.int64] | None
    test_labels: npt.NDArray[np.int64] | None
    fingerprint: str  # SHA-256 of the images
    images: ClassVar[bool] = True
    tokens: ClassVar[None] = None  # only a file of features can hold them

    @property
    def width(self) -> int:
        """Channels, which a backbone needs to know."""
        return self.train.shape[1]

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, config: HeadTrainingConfig, iteration: int) -> tuple[Tensor, ...]:
        """Crops of one step: global (views x n x channels x side x side), and local ones if any."""
        # a function of seed and step alone, so that runs can be resumed
        images = self.pixels[batch_index(len(self), config, iteration)]
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.manual_seed(generator("crops", config.seed, iteration).initial_seed())
            crops = [_crops(images, config.views, config.image_size, (0.4, 1.0))]
            if config.local_views:
                crops.append(_crops(images, config.local_views, config.local_size, (0.05, 0.4)))
        return tuple(crops)

    def sample(self, n: int, config: HeadTrainingConfig) -> Tensor:
        """Global crops drawn at random (n x channels x side x side), for use before training."""
        draw = generator("sample", config.seed)
        index = torch.randint(len(self), (n,), generator=draw)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw.initial_seed())
            return _crops(self.pixels[index], 1, config.image_size, (0.4, 1.0))[0]


def image_data(
    config: HeadTrainingConfig, arrays: dict[str, npt.NDArray[Any]], path: Path, fingerprint: str
) -> ImageData:
    """Take the ``images`` of a file (n x h x w, or n x h x w x 3, uint8); the rest is optional."""
    if config.backbone == "small":
        raise ParameterError(
            f"{path}: holds images, which the small backbone does not take.",
            hint="Name a timm model: `backbone=vit_tiny_patch16_224`.",
        )
    pixels = _channels_first(arrays["images"], "images", path)[: config.limit]
    held_out = (
        _channels_first(arrays["test_images"], "test_images", path)
        if "test_images" in arrays
        else pixels[:0]
    )
    labels = integers_of(arrays, "labels", len(arrays["images"]), path)
    return ImageData(
        pixels=pixels,
        train=_resized(pixels, config.image_size),
        test=_resized(held_out, config.image_size),
        train_labels=None if labels is None else labels[: config.limit],
        test_labels=integers_of(arrays, "test_labels", len(held_out), path),
        fingerprint=fingerprint,
    )


def _channels_first(images: npt.NDArray[Any], name: str, path: Path) -> Tensor:
    grey = images.ndim == 3
    if images.dtype != np.uint8 or not (grey or (images.ndim == 4 and images.shape[3] == 3)):
        raise SourceError(
            f"{path}: {name} has shape {images.shape} {images.dtype}.",
            hint="Images are n x h x w or n x h x w x 3, uint8.",
        )
    stacked = np.repeat(images[..., None], 3, axis=3) if grey else images
    return torch.from_numpy(np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)))


def _resized(pixels: Tensor, side: int) -> Tensor:
    from torchvision.transforms.v2 import functional as vision

    if not len(pixels):
        return torch.empty(0, 3, side, side)
    resized: Tensor = vision.resize(pixels, [side, side], antialias=True)
    return resized.float() / 127.5 - 1


def _crops(images: Tensor, views: int, side: int, scale: tuple[float, float]) -> Tensor:
    """Crops of every image, each drawn on its own (views x n x channels x side x side)."""
    transform = _transform(side, scale)
    return torch.stack([torch.stack([transform(image) for image in images]) for _ in range(views)])


@cache
def _transform(side: int, scale: tuple[float, float]) -> Any:
    """DINO's crop, flip and colour jitter, to [-1, 1]."""
    from torchvision.transforms import v2

    return v2.Compose(
        [
            v2.RandomResizedCrop(side, scale=scale, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
            v2.RandomGrayscale(p=0.2),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )

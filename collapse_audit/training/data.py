"""Data to train on: small image sets with precomputed augmented views, or cached features."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from collapse_audit.errors import ParameterError, SourceError
from collapse_audit.network.datasets import integers_of, load_arrays, read_idx
from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.images import ImageData, image_data
from collapse_audit.training.random_streams import batch_index, generator
from collapse_audit.training.tokens import PatchTokens, tokens_of
from collapse_audit.words import did_you_mean, printable

_FASHION_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte",
                  "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")  # fmt: skip
# where Debian's package dataset-fashion-mnist puts the original files
_FASHION_ROOT = "/usr/share/datasets/fashion-mnist"
_FASHION_HINT = (
    "Give `data_root=FOLDER` with Fashion-MNIST's original files "
    "(Debian: apt install dataset-fashion-mnist)."
)


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """What a run trains on and is evaluated with."""

    views: Tensor  # augmented samples (n x pool x width); pool 1 for features without views
    train: Tensor  # samples as they are (n x width), for kNN and probes
    test: Tensor  # held-out samples (width columns); empty if there are none
    train_labels: npt.NDArray[np.int64] | None
    test_labels: npt.NDArray[np.int64] | None
    images: bool  # whether samples are flattened images in [0, 1], which need a backbone
    fingerprint: str  # SHA-256 of the samples, before augmentation
    tokens: PatchTokens | None = None  # of every sample, for the iBOT term

    @property
    def width(self) -> int:
        """Pixels of an image, or dimension of the features."""
        return self.train.shape[1]

    def sample(self, n: int, config: HeadTrainingConfig) -> Tensor:
        """Views drawn at random (n x width), no two the same, for statistics before training."""
        # if there are fewer views, they repeat with a little noise
        draw = generator("sample", config.seed)
        flat = self.views.flatten(0, 1)
        index = torch.randperm(len(flat), generator=draw)[torch.arange(n) % len(flat)]
        noise = torch.randn(n, self.width, generator=draw)
        return flat[index] + 0.1 * noise * flat.std(dim=0) * (torch.arange(n) >= len(flat))[:, None]

    def __len__(self) -> int:
        return len(self.views)

    def batch(self, config: HeadTrainingConfig, iteration: int) -> tuple[Tensor, ...]:
        """Samples of one step, as a tuple of one (views x n x width)."""
        # a function of seed and step alone, so that runs can be resumed
        index = batch_index(len(self), config, iteration)
        draw = generator("views", config.seed, iteration)
        # distinct views while there are enough of them
        which = torch.rand(len(index), self.views.shape[1], generator=draw).argsort(dim=1)
        which = which[:, torch.arange(config.views) % which.shape[1]]
        batch = self.views[index[:, None], which].transpose(0, 1)
        if self.images:
            return (batch,)
        spread = self.train.std(dim=0)  # features have no natural unit: noise is relative
        return (batch + config.noise * spread * torch.randn(batch.shape, generator=draw),)


Data: TypeAlias = TrainingData | ImageData


def load_data(config: HeadTrainingConfig) -> Data:
    """Read the data of a configuration, on the CPU, and precompute its augmented views."""
    data: Data
    if config.data == "digits":
        data = _digits(config)
    elif config.data == "fashion-mnist":
        data = _fashion_mnist(config)
    else:
        data = _from_file(config)
    if len(data) < config.batch_size:
        raise ParameterError(
            f"{config.data}: {len(data)} training samples, but a batch holds {config.batch_size}.",
            hint="Lower `batch_size=N`.",
        )
    return data


def _image_data(
    config: HeadTrainingConfig,
    images: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    test_images: npt.NDArray[np.float32],
    test_labels: npt.NDArray[np.int64],
) -> TrainingData:
    train = torch.from_numpy(images[: config.limit])
    views = torch.empty(len(train), config.pool, train.shape[1] * train.shape[2])
    for view in range(config.pool):
        draw = generator("augmentation", config.seed, view)
        moved = _augmented(train[:, None], config.augmentation, config.noise, draw)
        views[:, view] = moved.flatten(1)
    return TrainingData(
        views=views,
        train=train.flatten(1),
        test=torch.from_numpy(test_images).flatten(1),
        train_labels=labels[: config.limit],
        test_labels=test_labels,
        images=True,
        fingerprint=_fingerprint(images[: config.limit], test_images),
    )


def _augmented(images: Tensor, strength: float, noise: float, draw: torch.Generator) -> Tensor:
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


def _digits(config: HeadTrainingConfig) -> TrainingData:
    """The 1797 digits of 8 x 8 pixels that scikit-learn ships: 1347 to train on, 450 to test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.images))
    images = (bunch.images[order] / 16).astype(np.float32)
    labels = bunch.target[order].astype(np.int64)
    return _image_data(config, images[:1347], labels[:1347], images[1347:], labels[1347:])


def _fashion_mnist(config: HeadTrainingConfig) -> TrainingData:
    """Fashion-MNIST from its original IDX files, halved to 14 x 14; 5000 images to test."""
    root = Path(config.data_root or _FASHION_ROOT)
    images, labels, test_images, test_labels = (
        read_idx(root, name, hint=_FASHION_HINT) for name in _FASHION_FILES
    )
    halved = [
        (part.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)) / 255).astype(np.float32)
        for part in (images[: config.limit], test_images[:5000])
    ]
    return _image_data(
        config, halved[0], labels.astype(np.int64), halved[1], test_labels[:5000].astype(np.int64)
    )


def _from_file(config: HeadTrainingConfig) -> Data:
    """Arrays of a file: images for a timm backbone, else features."""
    path = Path(config.data)
    arrays = _arrays(path)
    if "images" not in arrays:
        return _features(config, arrays, path)
    present = [name for name in ("images", "test_images") if name in arrays]
    return image_data(config, arrays, path, _fingerprint(*(arrays[name] for name in present)))


def _features(
    config: HeadTrainingConfig, arrays: dict[str, npt.NDArray[Any]], path: Path
) -> TrainingData:
    """Cached features (n x d, or n x views x d); optional labels, test split and patch tokens."""
    features = _matrix(arrays, "features", path)
    views = features if features.ndim == 3 else features[:, None]
    views = views[: config.limit]
    test = arrays.get("test_features")
    held_out = views[:0, 0] if test is None else _matrix(arrays, "test_features", path)
    if held_out.ndim != 2 or held_out.shape[1] != views.shape[2]:
        raise SourceError(
            f"{path}: test_features have shape {held_out.shape}, features {features.shape}.",
            hint="Both must have the same width, and test_features one row per sample.",
        )
    tokens = tokens_of(config, arrays, len(views), views.shape[2], path)
    labels = integers_of(arrays, "labels", len(features), path)
    cached = () if tokens is None else (tokens.whole, tokens.masked, tokens.mask)
    return TrainingData(
        views=torch.from_numpy(views),
        train=torch.from_numpy(views[:, 0]),
        test=torch.from_numpy(held_out),
        train_labels=None if labels is None else labels[: config.limit],
        test_labels=integers_of(arrays, "test_labels", len(held_out), path),
        images=False,
        fingerprint=_fingerprint(features, held_out, *(part.numpy() for part in cached)),
        tokens=tokens,
    )


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    if not os.path.isfile(path):  # noqa: PTH113 - of a name that is too long, too
        raise SourceError(
            f"data: no set and no file '{printable(path)}'.",
            hint=did_you_mean(str(path), ("digits", "fashion-mnist"))
            or "Use digits, fashion-mnist, or a file of features (.npz, .safetensors).",
        )
    return load_arrays(path)


def _matrix(arrays: dict[str, npt.NDArray[Any]], name: str, path: Path) -> npt.NDArray[np.float32]:
    if name not in arrays:
        raise SourceError(
            f"{path}: no array {name!r}; it holds {', '.join(sorted(arrays)) or 'nothing'}.",
            hint="Training needs 'features' (n x d, or n x views x d).",
        )
    values = arrays[name]
    if values.ndim not in (2, 3) or values.dtype.kind != "f" or 0 in values.shape:
        raise SourceError(
            f"{path}: {name} has shape {values.shape} {values.dtype}, not n x d floats."
        )
    exact = np.ascontiguousarray(values, dtype=np.float32)
    bad = ~np.isfinite(exact).reshape(len(exact), -1).all(axis=1)
    if bad.any():
        raise SourceError(
            f"{path}: {name} hold NaN or infinite values in {int(bad.sum())} rows "
            f"(first: {int(bad.argmax())}).",
            hint="Extract them again, in float32.",
        )
    return exact


def _fingerprint(*arrays: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()

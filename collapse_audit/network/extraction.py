"""Images -> features -> bottleneck, batch by batch."""

from __future__ import annotations

import errno
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from collapse_audit.errors import CollapseAuditWarning, ParameterError, SourceError
from collapse_audit.network.datasets import Images, Samples

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from collapse_audit.network.image_model import ImageModel
    from collapse_audit.network.preprocessing import Preprocessing

_TOLERATED = 0.01  # share of unreadable images beyond which the data, not an image, is broken
_SKIPPED_SHOWN = 3
_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L"})
# What the system says of one file; Pillow's own errors have no number. Any other is a fault.
_OF_ONE_FILE = frozenset({
    None, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.EINVAL,
})  # fmt: skip


class Loading(TypedDict, total=False):
    """How images are loaded."""

    batch_size: int  # images per forward pass; 64 by default
    workers: int  # processes that read them; 0 reads in this one
    skip_bad: bool  # whether any number of unreadable ones is skipped, as long as one is left


@dataclass(frozen=True, slots=True, eq=False)
class FeatureBatch:
    """Some samples on their way to the prototypes."""

    rows: Tensor  # backbone features (n x width), or logits (n x k)
    index: npt.NDArray[np.intp]  # places in the data source


@dataclass(frozen=True, slots=True, eq=False)
class _Item:
    index: int
    pixels: npt.NDArray[Any] | None
    problem: str = ""
    is_deep: bool = False
    is_fault: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _PreparedImages:
    """What a worker process runs; problems travel as values, because exceptions lose theirs."""

    images: Images
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> _Item:
        try:
            image = self.images[index]
            if getattr(image, "mode", "") in _DEEP_MODES:
                deep = f"mode {image.mode}, not 8 bits per channel"  # type: ignore[union-attr]
                return _Item(index, None, deep, is_deep=True)
            return _Item(index, self.preprocessing(image))
        except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three
            problem = str(error).splitlines()[0] if str(error) else "unreadable"
            fault = isinstance(error, OSError) and error.errno not in _OF_ONE_FILE
            return _Item(index, None, problem, is_fault=fault)


def image_batches(
    model: ImageModel,
    samples: Samples,
    index: npt.NDArray[np.intp],
    *,
    preprocessing: Preprocessing,
    dtype: torch.dtype,
    device: torch.device,
    **loading: Unpack[Loading],
) -> Iterator[FeatureBatch]:
    """Run images through the backbone; unreadable ones are skipped, with one warning at the end."""
    import torch  # seconds

    if samples.images is None:
        raise ParameterError("the data source holds no images.")
    loader: Any = torch.utils.data.DataLoader(
        _PreparedImages(samples.images, preprocessing),  # type: ignore[arg-type]
        sampler=[int(i) for i in index],
        batch_size=loading.get("batch_size", 64),
        num_workers=loading.get("workers", 0),
        collate_fn=list,
    )
    skip_bad, skipped = loading.get("skip_bad", False), list[str]()
    for items in loader:
        good = [item for item in items if item.pixels is not None]
        for item in items:
            if item.pixels is None:
                skipped.append(f"{_name(samples, item.index)} ({item.problem})")
                if item.is_deep:
                    raise ParameterError(f"{skipped[-1]}: convert this image to 8 bits first.")
                if item.is_fault:
                    raise SourceError(
                        f"{skipped[-1]}: it is the storage that fails, not the image."
                    )
        most = len(index) - 1 if skip_bad else max(1, math.floor(_TOLERATED * len(index)))
        if len(skipped) > most or len(skipped) == len(index):
            raise SourceError(
                f"{len(skipped)} of {len(index)} images cannot be read"
                f"{'' if skip_bad else ', more than 1 %'}: "
                f"{', '.join(skipped[:_SKIPPED_SHOWN])}, ...",
                hint="Repair or remove them, or leave them out with `skip_bad=True`.",
            )
        if good:
            pixels = torch.from_numpy(_stack(good, samples)).to(device, dtype)
            with torch.inference_mode():  # left before the yield: it would hold for the caller too
                features = model.features_of(pixels)
            yield FeatureBatch(features, np.array([item.index for item in good]))
    if skipped:
        warnings.warn(
            f"skipped {len(skipped)} of {len(index)} images that cannot be read: "
            f"{', '.join(skipped[:_SKIPPED_SHOWN])}",
            CollapseAuditWarning,
            stacklevel=2,
        )


def array_batches(
    values: npt.NDArray[np.floating],
    index: npt.NDArray[np.intp],
    *,
    batch_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Iterator[FeatureBatch]:
    """Cut features or logits into batches; values that are not finite are refused."""
    import torch

    for start in range(0, len(index), batch_size):
        part = index[start : start + batch_size]
        # a copy by fancy indexing, native byte order: the file may be mapped or big-endian
        rows = values[part].astype(np.float64 if dtype == torch.float64 else np.float32)
        broken = ~np.isfinite(rows).all(axis=1)
        if broken.any():
            raise ParameterError(
                f"sample {part[broken.argmax()]} holds NaN or infinite values.",
                hint="Compute it in float32, and look at its image.",
            )
        yield FeatureBatch(torch.from_numpy(rows).to(device), part)


def _stack(items: list[_Item], samples: Samples) -> npt.NDArray[Any]:
    arrays = [item.pixels for item in items if item.pixels is not None]
    for item, array in zip(items, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise ParameterError(
                f"{_name(samples, item.index)} is {array.shape[2]} x {array.shape[1]} pixels, "
                f"others are {arrays[0].shape[2]} x {arrays[0].shape[1]}.",
                hint="Use `resize=N` to bring all to one size.",
            )
    return np.stack(arrays)


def _name(samples: Samples, index: int) -> str:
    return f"image {index}" + (f" ({samples.names[index]})" if samples.names else "")

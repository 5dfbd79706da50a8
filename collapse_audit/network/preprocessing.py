"""Images as the official evaluation code of each family sees them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from collapse_audit.errors import ParameterError
from collapse_audit.manifest import load_manifest

if TYPE_CHECKING:
    from PIL.Image import Image

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Resize the shorter side, crop the centre, scale to [0, 1], standardise."""

    resize: int | None = 256  # shorter side in pixels; ``None`` for no resize and no crop
    crop: int = 224  # side of the central square that is kept
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"  # of the resize, antialiased
    mean: tuple[float, float, float] = _IMAGENET_MEAN  # subtracted, per channel
    std: tuple[float, float, float] = _IMAGENET_STD  # divisor, per channel

    def fitted(self, side: int | None) -> Preprocessing:
        """The same for a model of another input size; resize keeps its ratio to the crop."""
        if side is None or self.resize is None or side == self.crop:
            return self
        return replace(self, resize=round(self.resize * side / self.crop), crop=side)

    def __call__(self, image: Image | npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Prepare one image, as :func:`to_image` takes it (3 x height x width)."""
        picture = to_image(image).convert("RGB")
        if self.resize is not None:
            picture = _crop(_resize(picture, self.resize, self.interpolation), self.crop)
        # float64 until the end: a float64 run of the model must not inherit float32 pixels
        values = np.asarray(picture, dtype=np.float64) / 255.0
        values = (values - np.array(self.mean)) / np.array(self.std)
        return np.ascontiguousarray(values.transpose(2, 0, 1))


def profiles() -> dict[str, Preprocessing]:
    """Evaluation profiles by name, as the manifest has them from each family's own code."""
    known = load_manifest().preprocessing
    return {name: Preprocessing(**asdict(profile)) for name, profile in known.items()}


def preprocessing_for(
    profile: str, *, resize: int | Literal["none"] | None = None
) -> Preprocessing:
    """A profile by name; ``resize`` replaces its resize and crop, ``"none"`` leaves images be."""
    known = profiles()
    if profile not in known:
        raise ParameterError(
            f"no preprocessing profile {profile!r}.", hint=f"Profiles: {', '.join(known)}."
        )
    found = known[profile]
    if resize == "none":
        return replace(found, resize=None)
    if resize is None:
        return found
    if resize < 1:
        raise ParameterError(f"resize must be a number of pixels or none, got {resize}.")
    return replace(found, resize=resize, crop=resize)


def to_image(image: Image | npt.NDArray[Any]) -> Image:
    """Take an array (uint8; height x width, or height x width x 3) for an image."""
    from PIL import Image

    if isinstance(image, Image.Image):
        return image
    grey = image.ndim == 2
    if image.dtype != np.uint8 or not (grey or (image.ndim == 3 and image.shape[2] == 3)):
        raise ParameterError(
            f"images must be uint8 of height x width or height x width x 3, got {image.dtype} of "
            f"shape {image.shape}."
        )
    return Image.fromarray(image)


def _resize(image: Image, side: int, interpolation: str) -> Image:
    from PIL import Image

    width, height = image.size
    short = min(width, height)
    if short == side:
        return image
    # torchvision truncates the longer side, and so do the official evaluations that use it
    size = (int(side * width / short), int(side * height / short))
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    return image.resize(size, filters[interpolation])


def _crop(image: Image, side: int) -> Image:
    width, height = image.size
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image.crop((left, top, left + side, top + side))

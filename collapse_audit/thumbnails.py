"""Images -> small copies in the text of a page: pixels, and nothing else of the file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collapse_audit.errors import ParameterError

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDES: Final = (96, 64, 48, 32, 16, 8)  # pixels of the longer side, the first that fits
_LOSSLESS: Final = 32  # smaller images stay as they are
_ALL: Final = 1_200_000  # characters of all images: with the text around them below 2 MB


def thumbnails(images: Any, places: Iterable[int]) -> dict[int, str]:
    """Images of these places as ``data:`` URIs, by place; what cannot be read is left out."""
    from PIL import Image

    wanted, found = sorted(set(places)), dict[int, str]()
    if wanted and wanted[-1] >= len(images):
        raise ParameterError(
            f"sample {wanted[-1]} was measured, and there are {len(images)} images.",
            hint="Give the images that the class distribution was measured over.",
        )
    for place in wanted:
        try:
            image = images[place]
            image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
            found[place] = _data_uri(image, _ALL // len(wanted))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            continue  # Pillow raises all four
    return found


def _data_uri(image: Image, most: int) -> str:
    """An image in at most ``most`` characters (at least 1,000), of 96 pixels or fewer a side."""
    from PIL import Image

    # by way of its pixels: EXIF, comments and profiles stay behind
    pixels, text = Image.fromarray(np.asarray(image.convert("RGB"))), ""
    for side in _SIDES:
        small = pixels.copy()
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        file = BytesIO()
        small.save(file, "WEBP", quality=80, lossless=max(pixels.size) <= _LOSSLESS)
        text = "data:image/webp;base64," + b64encode(file.getvalue()).decode()
        if len(text) <= most:
            break
    return text

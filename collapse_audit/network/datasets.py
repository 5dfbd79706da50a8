"""Where samples come from: folders, data sets, arrays."""

from __future__ import annotations

import gzip
import math
import os
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from collapse_audit.errors import CollapseAuditWarning, ParameterError, SourceError
from collapse_audit.files import refuse_special

if TYPE_CHECKING:
    from PIL.Image import Image

Labels = npt.NDArray[np.int64]

_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_ARRAYS = ("images", "features", "logits")
_CHOICES = (
    "Give a folder of images, digits, fashion-mnist:FOLDER, a torchvision data set as "
    "NAME:FOLDER, or a .npz or .safetensors file."
)


class Images(Protocol):
    """Images by index, read when asked for; an unreadable one raises ``OSError``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Image | npt.NDArray[np.uint8]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Samples of one of three kinds.

    Attributes:
        images: Images, or ``None``.
        features: What the backbone gives the head (n x d), or ``None``.
        logits: n x k, or ``None``.
        labels: One integer per sample, or ``None``.
        names: What to call a sample in messages; by default its index.
        places: Index of each sample in the data source that it was made from; by default its own.

    As many labels, names or places as samples, else ParameterError.
    """

    images: Images | None = None
    features: npt.NDArray[np.floating] | None = None
    logits: npt.NDArray[np.floating] | None = None
    labels: Labels | None = None
    names: tuple[str, ...] | None = None
    places: npt.NDArray[np.intp] | None = None

    def __post_init__(self) -> None:
        n = len(self)
        for name in ("labels", "names", "places"):
            values = getattr(self, name)
            if n and values is not None and len(values) != n:
                raise ParameterError(f"{name} must be one for each of {n} samples: {len(values)}.")

    def __len__(self) -> int:
        return next((len(values) for _, values in self._held()), 0)

    def __repr__(self) -> str:
        labels = "" if self.labels is None else ", with labels"
        return f"Samples({len(self)} {' '.join(kind for kind, _ in self._held())}{labels})"

    def _held(self) -> Iterator[tuple[str, Sized]]:
        for kind in _ARRAYS:
            if (values := getattr(self, kind)) is not None:
                yield kind, values


@dataclass(frozen=True, slots=True, eq=False)
class ImageFiles:
    """Image files, opened one at a time; plain names, because a folder may hold millions."""

    folder: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Image:
        from PIL import Image

        path = self.folder / self.names[index]
        refuse_special(path.resolve())
        with Image.open(path) as image:
            image.load()  # a truncated file shows here, not in the preprocessing
            return image


@dataclass(frozen=True, slots=True, eq=False)
class PairedImages:
    """Images of a torchvision data set, whose items are pairs with a label."""

    pairs: Any

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Image:
        image: Image = self.pairs[index][0]
        return image


def open_samples(data: str | Path) -> Samples:
    """Open a data source.

    Args:
        data: A folder of images (flat, or one folder per label), ``digits``,
            ``fashion-mnist:FOLDER``, ``NAME:FOLDER`` of torchvision (nothing is downloaded), or a
            ``.npz`` or safetensors file with ``images``, ``features`` or ``logits``.

    Returns:
        Its samples, images not yet read.

    Raises:
        SourceError: If it cannot be found or read.
        ParameterError: If it is no name at all.
    """
    if not isinstance(data, str | Path):
        raise ParameterError(
            f"a data source is a name or a path, got {type(data).__name__}.",
            hint="collapse_audit.network.Samples(images=...) takes arrays in memory.",
        )
    text = str(data)
    if text == "digits":
        return _digits()
    name, colon, folder = text.partition(":")
    if name.lower().replace("_", "-") == "fashion-mnist":
        return _fashion_mnist(Path(folder).expanduser() if folder else None)
    path = Path(text).expanduser()
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _array_file(path)
    if colon:
        return _torchvision(name, folder)
    raise SourceError(f"{text}: no such file, folder or data set.", hint=_CHOICES)


def choose(n: int, *, limit: int | None, seed: int) -> npt.NDArray[np.intp]:
    """Indices of a random subset in ascending order: equal seeds choose equal samples."""
    if n < 1:
        raise SourceError("the data source holds no samples.", hint=_CHOICES)
    if limit is None or limit >= n:
        return np.arange(n)
    if limit < 1:
        raise ParameterError(f"limit must be at least 1, got {limit}.")
    return np.sort(np.random.default_rng(seed).permutation(n)[:limit])


def _digits() -> Samples:
    from sklearn.datasets import load_digits  # heavy

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    return Samples(images=images, labels=bunch.target.astype(np.int64))


def _fashion_mnist(folder: Path | None) -> Samples:
    if folder is None:
        raise SourceError(
            "fashion-mnist needs the folder of its files.",
            hint="Give `data=fashion-mnist:FOLDER`, with t10k-images-idx3-ubyte.gz in it.",
        )
    raw = folder / "FashionMNIST" / "raw"  # where torchvision puts them
    folder = raw if raw.is_dir() else folder
    images = read_idx(folder, "t10k-images-idx3-ubyte")
    labels = read_idx(folder, "t10k-labels-idx1-ubyte").astype(np.int64)
    return Samples(images=images, labels=labels)


def read_idx(folder: Path, name: str, *, hint: str = "") -> npt.NDArray[np.uint8]:
    """Read one IDX file of bytes: 00 00 08, number of axes, sizes (big-endian), values."""
    # name: without the suffix .gz that it may have; hint: what to do if it is not there
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise SourceError(f"{folder}: no {name} or {name}.gz.", hint=hint)
    content = path.read_bytes()
    try:
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        axes = content[3]
        sizes = np.frombuffer(content, ">u4", count=axes, offset=4).astype(int)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    except (OSError, EOFError, IndexError, ValueError, zlib.error) as error:
        raise SourceError(f"{path}: not a readable IDX file ({error}).") from error
    if content[:3] != b"\x00\x00\x08" or values.size != math.prod(sizes):
        raise SourceError(f"{path}: not an IDX file of bytes, or truncated.")
    return values.reshape(sizes)


def _folder(folder: Path) -> Samples:
    try:
        files = list(_file_names(folder))
    except OSError as error:
        raise SourceError(f"{error.filename}: cannot be read ({error.strerror}).") from error
    names = tuple(name for name in files if name.lower().endswith(_SUFFIXES))
    if not names:
        raise SourceError(f"{folder}: no images in this folder.", hint=_CHOICES)
    if others := Counter(Path(name).suffix for name in sorted({*files} - {*names})):
        kinds = ", ".join(f"{n:,} {suffix or 'without one'}" for suffix, n in others.items())
        warnings.warn(
            f"{folder}: left out {others.total():,} of {len(files):,} files, by their suffix "
            f"({kinds}); images are {', '.join(_SUFFIXES)}.",
            CollapseAuditWarning,
            stacklevel=2,
        )
    tops = [name.partition("/")[0] if "/" in name else "" for name in names]
    numbers = {top: number for number, top in enumerate(sorted(set(tops)))}
    labelled = "" not in numbers and len(numbers) > 1
    labels = np.fromiter(map(numbers.__getitem__, tops), np.int64) if labelled else None
    return Samples(images=ImageFiles(folder, names), labels=labels, names=names)


def _file_names(folder: Path, below: str = "") -> Iterator[str]:
    """Files in a folder and the folders in it, in the order of their paths."""
    with os.scandir(folder / below) as entries:
        found = sorted((e.name, e.is_dir(follow_symlinks=False)) for e in entries)
    for name, is_folder in found:
        if is_folder:
            yield from _file_names(folder, f"{below}{name}/")
        elif name != ".DS_Store":
            yield below + name


def _torchvision(name: str, folder: str) -> Samples:
    from torchvision import datasets  # heavy

    wanted = {c.lower(): getattr(datasets, c) for c in datasets.__all__}.get(name.lower())
    if wanted is None:
        raise SourceError(f"{name}: torchvision has no such data set.", hint=_CHOICES)
    root = str(Path(folder).expanduser())
    try:
        try:
            found = wanted(root, train=False)
        except TypeError:  # data sets with named splits
            found = wanted(root)
    except (RuntimeError, OSError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SourceError(
            f"{name}:{folder}: torchvision cannot open it ({reason}).",
            hint="Download it there first; nothing is downloaded here.",
        ) from error
    labels = getattr(found, "targets", None)
    return Samples(
        images=PairedImages(found),
        labels=None if labels is None else np.asarray(labels, dtype=np.int64),
    )


def _array_file(path: Path) -> Samples:
    arrays = load_arrays(path)
    held = [name for name in _ARRAYS if name in arrays]
    if len(held) != 1:
        raise SourceError(
            f"{path}: must hold exactly one of {', '.join(_ARRAYS)}; "
            f"it holds {', '.join(arrays) or 'nothing'}."
        )
    values = arrays[held[0]]
    _check_values(path, held[0], values)
    labels, places = (integers_of(arrays, name, len(values), path) for name in ("labels", "index"))
    return Samples(
        images=values if held[0] == "images" else None,
        features=values if held[0] == "features" else None,
        logits=values if held[0] == "logits" else None,
        labels=labels,
        places=places,
    )


def integers_of(
    arrays: Mapping[str, npt.NDArray[Any]], name: str, n: int, path: Path
) -> npt.NDArray[np.int64] | None:
    """Labels or places of n samples, if a file holds them; what is no n integers is refused."""
    if name not in arrays or not n:
        return None
    found = arrays[name]
    if found.shape != (n,) or found.dtype.kind not in "iu":
        raise SourceError(
            f"{path}: {name} must be {n} integers, got {found.dtype} of shape {found.shape}."
        )
    return found.astype(np.int64)


def _check_values(path: Path, name: str, values: npt.NDArray[Any]) -> None:
    if name == "images":
        good = values.dtype == np.uint8 and (
            values.ndim == 3 or (values.ndim == 4 and values.shape[3] == 3)
        )
        wanted = "uint8 of n x h x w or n x h x w x 3"
    else:
        good = values.dtype.kind == "f" and values.ndim == 2
        wanted = "floating point of n x d"
    if not good:
        raise SourceError(
            f"{path}: {name} must be {wanted}, got {values.dtype} of shape {values.shape}."
        )


def load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a ``.npz`` or safetensors file by name; nothing is unpickled."""
    if path.suffix not in (".npz", ".safetensors"):
        raise SourceError(f"{path}: is neither .npz nor .safetensors.", hint=_CHOICES)
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            return dict(load_file(path))
        # an open file, not a path: numpy leaves the file of a damaged archive open
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:
        # damaged bytes make the readers fail in any way there is; all of them mean the same
        raise SourceError(
            f"{path}: not a readable .npz or safetensors file ({type(error).__name__})."
        ) from error

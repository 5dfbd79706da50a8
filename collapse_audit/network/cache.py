"""Backbone features on disk, so that a second measurement needs no images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from collapse_audit.errors import SourceError
from collapse_audit.files import refuse_special, write_atomically


def save_features(
    path: Path, arrays: Mapping[str, npt.NDArray[Any]], *, origin: Mapping[str, str]
) -> None:
    """Write ``features`` and what belongs to them to a safetensors file, all or nothing."""
    from safetensors.numpy import save

    tensors = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_atomically(path, save(tensors, metadata=dict(origin)))


def check_origin(path: Path, origin: Mapping[str, str]) -> None:
    """Refuse a file of features that were made of something else."""
    from safetensors import SafetensorError, safe_open

    try:
        refuse_special(path.resolve())
        with safe_open(path, framework="numpy") as file:
            found = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise SourceError(f"{path}: not a readable safetensors file ({error}).") from error
    for name, value in origin.items():
        if found.get(name) != value:
            raise SourceError(
                f"{path}: these features were made with {name} {found.get(name)!r}, not {value!r}.",
                hint="Delete the file, or give another one with `features=FILE`.",
            )

"""IDX files, as MNIST and its kin are stored."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from collapse_audit.errors import SourceError
from collapse_audit.network.datasets import read_idx


def idx(values: npt.NDArray[np.uint8]) -> bytes:
    """As the description on MNIST's page has it."""
    head = bytes([0, 0, 8, values.ndim]) + b"".join(struct.pack(">I", n) for n in values.shape)
    return head + values.tobytes()


@pytest.mark.parametrize("shape", [(5,), (4, 3, 2), (0, 28, 28)])
@pytest.mark.parametrize("packed", [True, False])
def test_values_come_back_in_their_shape(
    tmp_path: Path, shape: tuple[int, ...], packed: bool
) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    content = idx(values)
    name = "x.gz" if packed else "x"
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    np.testing.assert_array_equal(read_idx(tmp_path, "x"), values)


def test_every_cut_and_every_other_kind_is_refused(tmp_path: Path) -> None:
    content = idx(np.arange(12, dtype=np.uint8).reshape(3, 4))
    packed = gzip.compress(content)
    damaged = [content[:n] for n in range(len(content))]
    damaged += [content + b"x", b"\x00\x00\x0d" + content[3:], b"\x1f\x8b" + content]
    for number, part in enumerate(damaged):
        (tmp_path / f"{number}").write_bytes(part)
        with pytest.raises(SourceError, match="IDX file"):
            read_idx(tmp_path, f"{number}")
    for number, part in enumerate(packed[:n] for n in range(len(packed))):
        (tmp_path / f"p{number}.gz").write_bytes(part)
        with pytest.raises(SourceError, match="IDX file"):
            read_idx(tmp_path, f"p{number}")


def test_a_missing_file_is_named_with_the_hint(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no images or images\.gz\. Fetch them\."):
        read_idx(tmp_path, "images", hint="Fetch them.")

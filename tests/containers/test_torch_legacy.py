"""What only files of torch.save before version 1.6 have: storages that lie one after the other."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import torch

from collapse_audit.containers.opening import read_checkpoint
from collapse_audit.errors import CheckpointError
from tests.small_checkpoints import WEIGHT, MemorySource, head, read_bytes, read_every_tensor, saved


def legacy(tree: object) -> bytes:
    return saved(tree, is_zip=False)


def test_a_head_costs_itself_and_the_index_wherever_it_lies() -> None:
    before, behind = torch.ones(3 * 1024, 1024), torch.zeros(2 * 1024, 1024)
    source = MemorySource(legacy({"x": before, "teacher": head(), "y": behind}))
    checkpoint = read_checkpoint(source, "large")
    key = "teacher/head.last_layer.weight_v"
    np.testing.assert_array_equal(checkpoint.tensors[key].read(), WEIGHT.numpy())
    assert source.size > 20e6
    assert source.bytes_read < 200_000


def test_storages_lie_in_the_order_that_the_file_says_and_not_in_that_of_the_dictionary() -> None:
    tensors = {f"{i}": torch.full((i + 1, 3), float(i)) for i in range(30)}
    found = read_every_tensor(read_bytes(legacy(dict(reversed(tensors.items())))))
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(found[key], tensor.numpy())


def test_a_truncated_file_says_how_much_is_missing() -> None:
    data = legacy({"teacher": head(), "x": torch.ones(100_000)})
    with pytest.raises(
        CheckpointError, match=r"truncated: a torch file of 0\.4 MB that should have"
    ):
        read_bytes(data[:-10])


def test_bytes_behind_the_last_storage_do_no_harm() -> None:
    checkpoint = read_bytes(legacy({"prototypes": WEIGHT}) + b"more")
    np.testing.assert_array_equal(checkpoint.tensors["prototypes"].read(), WEIGHT.numpy())


def test_a_storage_of_another_size_than_its_index_says_is_refused() -> None:
    data = bytearray(legacy({"prototypes": WEIGHT}))
    count = len(data) - WEIGHT.nbytes - 8
    assert struct.unpack("<q", data[count : count + 8]) == (WEIGHT.numel(),)
    data[count : count + 8] = struct.pack("<q", WEIGHT.numel() - 1)
    checkpoint = read_bytes(bytes(data))
    with pytest.raises(
        CheckpointError, match=r"prototypes: .* has 95 values, not those of the inde"
    ):
        checkpoint.tensors["prototypes"].read()


def test_a_storage_that_lies_about_its_size_is_refused() -> None:
    data = legacy({"prototypes": torch.ones(10_000, 7)})
    true, claimed = b"J" + struct.pack("<i", 70_000), b"J" + struct.pack("<i", 2**31 - 1)
    assert true in data
    with pytest.raises(CheckpointError, match=r"truncated: .* should have 8,589\.9 MB"):
        read_bytes(data.replace(true, claimed))


def test_values_are_little_endian_whatever_machine_wrote_them() -> None:
    data = legacy({"prototypes": WEIGHT})
    mark = data.index(b"little_endian") + len("little_endian")
    place = data.index(b"\x88", mark)  # True
    told = data[:place] + b"\x89" + data[place + 1 :]  # torch itself does not look at it
    oracle = torch.load(io.BytesIO(told), weights_only=True)["prototypes"]
    np.testing.assert_array_equal(read_bytes(told).tensors["prototypes"].read(), oracle.numpy())


def test_a_tensor_behind_a_storage_of_unknown_size_is_out_of_reach_and_one_before_it_is_not() -> (
    None
):
    tensors = [torch.ones(2, 2), torch.ones(2, 2, dtype=torch.float64)]
    first, second = sorted(tensors, key=lambda t: str(t.untyped_storage()._cdata))
    data = legacy({"first": first, "second": second})
    names = {torch.float32: b"FloatStorage", torch.float64: b"DoubleStorage"}
    reached = read_bytes(data.replace(names[second.dtype], b"FancyStorage"))
    assert reached.tensors["first"].read().tolist() == [[1, 1], [1, 1]]
    hidden = read_bytes(data.replace(names[first.dtype], b"FancyStorage"))
    assert list(hidden.tensors) == ["second"]
    with pytest.raises(CheckpointError, match=r"second: .* its storage is not where the file says"):
        hidden.tensors["second"].read()


@pytest.mark.parametrize(
    ("operation", "length"),
    [(b"X", struct.pack("<I", 0xFFFFFF)), (b"X", struct.pack("<I", 0xF0000000)),
     (b"\x8d", struct.pack("<Q", 1 << 40)), (b"\x8e", struct.pack("<Q", 1 << 62))],
)  # fmt: skip
def test_a_text_that_is_longer_than_the_file_or_all_memory_is_damage(
    operation: bytes, length: bytes
) -> None:
    data = legacy({"teacher": head()})
    start = data.index(b"X\x07\x00\x00\x00teacher")
    with pytest.raises(CheckpointError, match="damaged or truncated: its index ends in"):
        read_bytes(data[:start] + operation + length + bytes(1024))


def test_an_index_without_an_end_is_not_read_to_it() -> None:
    data = legacy({"teacher": head()})
    start = data.index(b"X\x07\x00\x00\x00teacher")
    source = MemorySource(data[:start] + b"X\xff\xff\xff\x7f" + bytes(50 * 1024**2))
    with pytest.raises(CheckpointError, match="its index is larger than"):
        read_checkpoint(source, "bomb")
    assert source.bytes_read < 2**20

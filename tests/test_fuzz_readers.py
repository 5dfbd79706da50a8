"""A sample of `make fuzz`, and what it has found."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from collapse_audit.containers.opening import read_checkpoint, read_path
from collapse_audit.errors import CheckpointError
from tests.fuzz_readers import Memory, fuzz
from tests.hostile_files import (
    HEAD,
    KEY,
    ROWS,
    D,
    K,
    entry,
    items,
    legacy,
    name,
    number,
    numbers,
    safetensors,
    storage,
    tensor,
    text,
    torch_zip,
    view,
)  # fmt: skip


@pytest.mark.slow
def test_programs_and_damaged_files_are_read_as_others_read_them_or_refused() -> None:
    outcomes, failures, _ = fuzz(1500, seed=1, files=300, remote=30)
    assert failures == []
    assert outcomes["read by us"] > 500
    assert outcomes["read by torch"] > 400
    assert outcomes["read by python"] > 80
    assert outcomes["tensors as in torch"] > 800
    assert outcomes["no answer"] < 20


def read(program: bytes) -> dict[str, np.ndarray]:
    """What we read in a program inside a zip archive."""
    tensors = read_checkpoint(Memory(torch_zip(program)), "a.pth").tensors
    return {key: tensor.read() for key, tensor in tensors.items()}


def by_torch(program: bytes) -> dict[str, torch.Tensor]:
    return torch.load(io.BytesIO(torch_zip(program)), weights_only=True)


HOLDING = b"}" + text(KEY)
PAIR = b"(" + text(KEY) + tensor() + b"t"
ORDERED, COUNTER = name("collections", "OrderedDict"), name("collections", "Counter")
BUILT = {
    "a dictionary of pairs in a list": ORDERED + b"](" + PAIR + b"e\x85R",
    "a dictionary of pairs in a tuple": ORDERED + PAIR + b"\x85\x85R",
    "a dictionary made empty": ORDERED + b"](" + PAIR + b"e\x85\x81",
    "a counter of pairs": COUNTER + b"](N(K\1K\2te\x85R",
    "a counter of a dictionary": COUNTER + HOLDING + tensor() + b"s\x85R",
    "a tensor brought to its device": HOLDING
    + name("torch._utils", "_rebuild_device_tensor_from_cpu_tensor")
    + b"("
    + tensor()
    + name("torch", "float32")
    + text("cpu")
    + b"\x89tRs",
    "a parameter with an attribute": HOLDING
    + name("torch._utils", "_rebuild_parameter_with_state")
    + b"("
    + tensor()
    + b"\x89}}"
    + text("tag")
    + tensor()
    + b"stRs",
    "flags that torch does not know": HOLDING
    + name("torch._utils", "_rebuild_tensor_v2")
    + view()[:-1]
    + b"}"
    + text("x")
    + b"\x88stRs",
    "a short text of two bytes a letter": b"}U\2\xc3\xa9" + tensor() + b"s",
}


@pytest.mark.parametrize("what", BUILT)
def test_a_program_gives_the_dictionary_that_torch_gives(what: str) -> None:
    program = b"\x80\x02" + BUILT[what] + b"."
    expected = {
        key: value for key, value in by_torch(program).items() if isinstance(value, torch.Tensor)
    }
    ours = read(program)
    assert list(ours) == list(expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(ours[key], value.detach().numpy())
    assert bool(expected) == (what not in {"a dictionary made empty", "a counter of pairs"})


@pytest.mark.parametrize("flag", ["neg", "conj"])
def test_a_tensor_that_torch_turns_when_it_reads_is_not_taken_as_it_is_stored(flag: str) -> None:
    call = name("torch._utils", "_rebuild_tensor_v2") + view()[:-1] + b"}" + text(flag) + b"\x88stR"
    assert read(items((text(KEY), call), (text("b"), tensor()))).keys() == {"b"}


def test_a_tensor_of_a_kind_not_read_inside_another_costs_nothing_but_itself() -> None:
    lazy = name("torch._utils", "_rebuild_tensor_v2") + view()[:-1] + HOLDING[:1]
    lazy += text("neg") + b"\x88stR"
    moved = name("torch._utils", "_rebuild_device_tensor_from_cpu_tensor")
    moved += b"(" + lazy + name("torch", "float32") + text("cpu") + b"\x89tR"
    assert read(items((text("a"), moved), HEAD)).keys() == {KEY}


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (items((text(KEY), tensor() + b"}b")), "gives a tensor other values"),
        (items((text(KEY), tensor(of=storage() + b"}b"))), "gives a tensor other values"),
        (items(HEAD, (text("b"), tensor(of=storage(numel=9), shape=(9,), strides=(1,)))),
         "described twice"),
        (items((text(KEY), name("torch", "Size") + b"]R")), "arguments that are no tuple"),
    ],
)  # fmt: skip
def test_what_readers_could_take_in_two_ways_is_refused(program: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(program)


def test_three_flags_of_an_old_parameter_change_nothing() -> None:
    parameter = name("torch.nn.parameter", "Parameter") + b"(" + tensor() + b"\x88t\x81"
    program = items((text(KEY), parameter + b"(\x88\x89}tb"))
    np.testing.assert_array_equal(read(program)[KEY], ROWS)
    np.testing.assert_array_equal(read(program)[KEY], by_torch(program)[KEY].detach().numpy())


def test_one_view_of_a_legacy_file_has_one_place() -> None:
    def of(offset: int, key: str) -> bytes:
        part = b"(" + text(key) + number(offset) + number(D) + b"t"
        return tensor(shape=(1, D), of=storage(more=part))

    two = legacy(items((text("a"), of(0, "v")), (text("b"), of(D, "w"))))
    tensors = read_checkpoint(Memory(two), "a.pth").tensors
    np.testing.assert_array_equal(tensors["b"].read(), ROWS[1:2])
    other = torch.load(io.BytesIO(two), weights_only=True)
    np.testing.assert_array_equal(tensors["b"].read(), other["b"].numpy())
    with pytest.raises(CheckpointError, match="described twice"):
        read_checkpoint(
            Memory(legacy(items((text("a"), of(0, "v")), (text("b"), of(D, "v"))))), "a"
        )


def test_bytes_of_a_storage_without_a_type_are_never_turned_round(tmp_path: Path) -> None:
    call = name("torch._utils", "_rebuild_tensor_v3")
    values = storage(kind="Untyped", numel=4 * K * D)
    arguments = b"(" + values + number(0) + numbers((K, D)) + numbers((D, 1)) + b"\x89}"
    program = items((text(KEY), call + arguments + name("torch", "float32") + b"tR"))
    data = torch_zip(program, more={"byteorder": b"big"})
    (tmp_path / "a.pth").write_bytes(data)
    ours = read_path(tmp_path / "a.pth", "a.pth").tensors[KEY].read()
    np.testing.assert_array_equal(
        ours, torch.load(io.BytesIO(data), weights_only=True)[KEY].numpy()
    )


@pytest.mark.parametrize("length", [0x7B, 0x7B20, 0x7B0A0D, 123 + 256])
def test_a_safetensors_header_whose_length_looks_like_json_is_no_json(length: int) -> None:
    header = b'{"%b":{"dtype":"F32","shape":[12,4],"data_offsets":[0,192]}' % KEY.encode()
    data = safetensors(header + b" " * (length - len(header) - 1) + b"}")
    assert int.from_bytes(data[:8], "little") == length
    tensors = read_checkpoint(Memory(data), "a.safetensors").tensors
    np.testing.assert_array_equal(tensors[KEY].read(), ROWS)
    assert entry()["shape"] == (K, D)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_legacy_file_of_every_protocol_is_read(protocol: int) -> None:
    buffer, weight = io.BytesIO(), torch.from_numpy(ROWS.copy())
    torch.save({KEY: weight, "b": weight.half()}, buffer, pickle_protocol=protocol,
               _use_new_zipfile_serialization=False)  # fmt: skip
    checkpoint = read_checkpoint(Memory(buffer.getvalue()), "a.pth")
    assert checkpoint.container == "legacy"
    np.testing.assert_array_equal(checkpoint.tensors[KEY].read(), ROWS)
    np.testing.assert_array_equal(checkpoint.tensors["b"].read(), weight.half().numpy())

"""Files of torch.save since version 1.6: a zip archive of one pickle and one member a storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

from collapse_audit.containers.byte_source import InMemory
from collapse_audit.containers.index_machine import Index, read_index
from collapse_audit.containers.limits import INDEX_BYTES, TENSORS
from collapse_audit.containers.pickled import Opaque, TensorRef, is_module, key_name, tensors_below
from collapse_audit.containers.tensors import (
    WIDTHS,
    Checkpoint,
    StoredTensor,
    Values,
    by_key,
    not_read,
)
from collapse_audit.containers.views import read_view
from collapse_audit.containers.zip_archive import ZipArchive
from collapse_audit.errors import CheckpointError
from collapse_audit.words import printable


def read_torch_zip(archive: ZipArchive, size: int) -> Checkpoint:
    """Describe the tensors of an archive with a ``data.pkl``; each is read when asked for."""
    folder = index_folder(archive)
    index = read_index(archive.read(f"{folder}data.pkl", INDEX_BYTES), archive.name)
    little = archive.read(f"{folder}byteorder", 16) != b"big"
    notes: tuple[str, ...] = ()
    if f"{folder}constants.pkl" in archive.members:
        notes = ("a TorchScript archive: parameters that tracing has fused are not named in it",)
    return torch_checkpoint(
        archive.name,
        "zip",
        size,
        index,
        lambda tensor, where: read_tensor(archive, folder, tensor, where, little=little),
        notes=notes,
    )


def index_folder(archive: ZipArchive) -> str:
    """The folder that holds the only index: such as ``archive/``; nothing if it lies at the top."""
    names = [name for name in archive.members if name.rpartition("/")[2] == "data.pkl"]
    least = min((name.count("/") for name in names), default=0)
    shallow = [name for name in names if name.count("/") == least]
    of_torch = next(iter(archive.members), "").partition("/")[0] + "/data.pkl"
    if len(shallow) != 1 or (of_torch in names and of_torch not in shallow):
        raise CheckpointError(
            f"{archive.name}: a zip archive with {len(names)} indices (data.pkl) instead of one.",
            hint="If checkpoints were zipped together, unpack them and give one.",
        )
    return shallow[0].removesuffix("data.pkl")


def read_tensor(
    archive: ZipArchive, folder: str, tensor: TensorRef, where: str, *, little: bool
) -> Values:
    """The values of one tensor of the index, from the storage that it names."""
    member = archive.members.get(f"{folder}data/{tensor.storage.key}")
    if member is None:
        raise CheckpointError(
            f"{where}: is in a storage that the file does not hold.",
            hint="The file is damaged: compare its size with the source.",
        )
    read = partial(archive.read_part, member)
    return read_view(tensor, member.file_size, read, name=where, little=little)


def torch_checkpoint(
    name: str,
    container: Literal["zip", "legacy"],
    size: int,
    index: Index,
    read: Callable[[TensorRef, str], Values],
    *,
    notes: tuple[str, ...] = (),
) -> Checkpoint:
    """A checkpoint from the index of a torch file: its tensors, and the options beside them."""
    # read: a tensor, of its reference and its name for messages. Types that heads are not stored in
    # are only named; a CheckpointError for far more tensors than any network has.
    root = index.root
    held = isinstance(root, dict) or (isinstance(root, Opaque) and bool(root.items))
    if not held and not is_module(root):
        root = {"prototypes": root}
    tensors: list[StoredTensor] = []
    other: dict[str, None] = {}
    for path, tensor in tensors_below(root):
        if tensor.dtype not in WIDTHS:
            other[tensor.dtype] = None
            continue
        where = f"{name}: {printable('/'.join(path))}"
        view = (tensor.storage.key, tensor.offset, tensor.shape, tensor.strides)
        values = partial(read, tensor, where)
        if (data := tensor.storage.data) is not None:
            values = partial(read_view, tensor, len(data), InMemory(data).read, name=where)
        tensors.append(StoredTensor(path, tensor.shape, tensor.dtype, view, values))
        if len(tensors) > TENSORS:
            raise CheckpointError(
                f"{name}: over {TENSORS:,} tensors; they were not counted to the end.",
                hint="Save the state dict of the network alone.",
            )
    found = by_key(tensors)
    modules = dict.fromkeys(key.partition(".")[0] for key in found)
    top: Mapping[Any, Any] = root if isinstance(root, dict) else getattr(root, "items", {})
    return Checkpoint(
        name=name,
        container=container,
        size=size,
        tensors=found,
        top_level=tuple(map(key_name, top)) or tuple(modules),
        options=_options(top),
        notes=notes,
        unread=index.unread + not_read(other),
    )


def _options(top: Mapping[Any, Any]) -> dict[str, Any]:
    """The training options that DINO and its relatives save as ``args``, and the epoch beside."""
    held = top.get("args")
    options = held.attributes if isinstance(held, Opaque) else held
    if not isinstance(options, Mapping):
        return {}
    plain = (str, int, float, bool, type(None))
    held = {**options, "epoch": top["epoch"]} if "epoch" in top else options
    return {key_name(key): value for key, value in held.items() if isinstance(value, plain)}

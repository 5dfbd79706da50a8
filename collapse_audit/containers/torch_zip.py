"""Files of torch.save since version 1.6: a zip archive of one pickle and one member a storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

from collapse_audit.containers.index_machine import Index, read_index
from collapse_audit.containers.limits import INDEX_BYTES, TENSORS
from collapse_audit.containers.pickled import Opaque, TensorRef, is_module, key_name, tensors_below
from collapse_audit.containers.tensors import WIDTHS, Checkpoint, StoredTensor, Values
from collapse_audit.containers.views import read_view
from collapse_audit.containers.zip_archive import ZipArchive
from collapse_audit.errors import CheckpointError
from collapse_audit.words import printable


def read_torch_zip(archive: ZipArchive, size: int) -> Checkpoint:
    """Describe the tensors of an archive of so many bytes; each is read when asked for."""
    folder = index_folder(archive)
    index = read_index(archive.read(f"{folder}data.pkl", INDEX_BYTES), archive.name)
    little = archive.read(f"{folder}byteorder", 16) != b"big"
    notes: tuple[str, ...] = ()
    if f"{folder}constants.pkl" in archive.members:
        notes = ("a TorchScript archive: parameters that tracing has fused are not named in it",)

    def read(tensor: TensorRef, where: str) -> Values:
        member = archive.members.get(f"{folder}data/{tensor.storage.key}")
        if member is None:
            raise CheckpointError(
                f"{where}: is in a storage that the file does not hold.",
                hint="The file is damaged: compare its size with the source.",
            )
        part = partial(archive.read_part, member)
        return read_view(tensor, member.file_size, part, name=where, little=little)

    return torch_checkpoint(archive.name, "zip", size, index, read, notes=notes)


def index_folder(archive: ZipArchive) -> str:
    """The folder that holds the one index, such as ``"archive/"``; empty at the top."""
    names = [name for name in archive.members if name.rpartition("/")[2] == "data.pkl"]
    shallow = [name for name in names if name.count("/") == min(n.count("/") for n in names)]
    of_torch = next(iter(archive.members), "").partition("/")[0] + "/data.pkl"
    if len(shallow) != 1 or (of_torch in names and of_torch not in shallow):
        raise CheckpointError(
            f"{archive.name}: a zip archive with {len(names)} indices (data.pkl) instead of one.",
            hint="If checkpoints were zipped together, unpack them and give one.",
        )
    return shallow[0].removesuffix("data.pkl")


def torch_checkpoint(
    name: str,
    container: Literal["zip", "legacy"],
    size: int,
    index: Index,
    read: Callable[[TensorRef, str], Values],  # of a tensor, and its name for messages
    *,
    notes: tuple[str, ...] = (),
) -> Checkpoint:
    """The tensors of a torch file of types that heads are stored in, and its options."""
    root = index.root
    held = isinstance(root, dict) or (isinstance(root, Opaque) and bool(root.items))
    if not held and not is_module(root):
        root = {"prototypes": root}
    tensors: dict[str, StoredTensor] = {}
    for path, tensor in tensors_below(root):
        if tensor.dtype not in WIDTHS:
            continue
        where = f"{name}: {printable('/'.join(path))}"
        view = (tensor.storage.key, tensor.offset, tensor.shape, tensor.strides)
        stored = StoredTensor(path, tensor.shape, tensor.dtype, view, partial(read, tensor, where))
        tensors.setdefault(stored.key, stored)
        if len(tensors) > TENSORS:
            raise CheckpointError(
                f"{name}: over {TENSORS:,} tensors; they were not counted to the end.",
                hint="Save the state dict of the network alone.",
            )
    top: Mapping[Any, Any] = root if isinstance(root, dict) else getattr(root, "items", {})
    return Checkpoint(
        name=name,
        container=container,
        size=size,
        tensors=tensors,
        top_level=tuple(map(key_name, top))
        or tuple(dict.fromkeys(key.partition(".")[0] for key in tensors)),
        options=_options(top),
        notes=notes,
        unread=index.unread,
    )


def _options(top: Mapping[Any, Any]) -> dict[str, Any]:
    """The training options that DINO and its relatives save as ``args``."""
    held = top.get("args")
    options = held.attributes if isinstance(held, Opaque) else held
    if not isinstance(options, Mapping):
        return {}
    plain = (str, int, float, bool, type(None))
    return {key_name(key): value for key, value in options.items() if isinstance(value, plain)}

"""Which container a file is, from its bytes and never from its suffix."""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections import Counter
from pathlib import Path

from collapse_audit.checkpoints.tensors import Container, megabytes, printable
from collapse_audit.errors import CheckpointError, SourceError

# First pickle of a file written by torch.save before 1.6: protocol 2, then torch's magic number.
LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
NPY_MAGIC = b"\x93NUMPY"
ZIP_MAGIC = b"PK\x03\x04"
# The pickle of a checkpoint is normally below 1 MB. One opcode of a byte can make an object of a
# hundred, so that a large pickle is somebody's bomb.
MAX_PICKLE_BYTES = 8 * 1024**2

_DAMAGED = "Download the file again and compare its size with the source."
_SMALL_PICKLES = (
    f"A checkpoint's pickle is normally below 1 MB; at most {megabytes(MAX_PICKLE_BYTES)} are read."
)
_FORMATS = "Give a .pth, .ckpt, .safetensors, .npy or .npz file."


def sniff(path: Path) -> Container:
    """Tell the container of a file.

    Args:
        path: An existing regular file.

    Returns:
        Its container; a zip archive is told apart into torch's and numpy's by its members.

    Raises:
        SourceError: If the file cannot be opened.
        CheckpointError: If it is empty, a web page, truncated, or of no known format.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise SourceError(
            f"{printable(path)}: cannot be opened ({error.strerror or error}).",
            hint="Check the file's permissions.",
        ) from error
    if size == 0:
        raise CheckpointError(f"{printable(path)}: the file is empty (0 bytes).", hint=_DAMAGED)
    if head.startswith(ZIP_MAGIC):
        return _check_zip(path, size)
    if head.startswith(LEGACY_MAGIC):
        _check_legacy_pickles(path, size)
        return "legacy"
    if head.startswith(NPY_MAGIC):
        return "npy"
    # eight bytes of header length, then JSON; a lying length is the reader's to report
    if head[8:9] == b"{":
        return "safetensors"
    what, hint = _unknown_format(head, size)
    raise CheckpointError(f"{printable(path)}: the file is {what}.", hint=hint)


def _unknown_format(head: bytes, size: int) -> tuple[str, str]:
    """What an unreadable file is, as far as its first bytes tell, and what to do about it."""
    text = head.lstrip().lower()
    pages = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")
    unpack = "Unpack it and give the checkpoint inside."
    for recognised, what, hint in (
        (text.startswith(pages), "a web page, not a checkpoint", "The download failed: try again."),
        (text.startswith(b"version https://git-lfs"), "a Git LFS pointer", "Run git lfs pull."),
        (head[257:262] == b"ustar", "a tar archive, which is not read", unpack),
        (head.startswith(b"\x1f\x8b"), "gzip-compressed", unpack),
        (LEGACY_MAGIC.startswith(head), f"truncated after {size} bytes", _DAMAGED),
        (head.startswith(b"\x80"), "a plain Python pickle, which is never executed", _FORMATS),
    ):
        if recognised:
            return what, hint
    return f"not a checkpoint format known here ({megabytes(size)})", _FORMATS


def _check_zip(path: Path, size: int) -> Container:
    """Refuse what no torch or numpy writes, before anything is unpacked."""
    shown = printable(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    # NotImplementedError: a damaged file may ask for a zip version that there is not.
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, EOFError) as error:
        raise CheckpointError(
            f"{shown}: a truncated or damaged zip checkpoint of {megabytes(size)}: "
            f"the index at its end cannot be read ({printable(error)}).",
            hint=_DAMAGED,
        ) from error
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise CheckpointError(f"{shown}: zip member {printable(twice)!r} appears more than once.")
    for member in members:
        if member.header_offset + 30 + member.compress_size > size:
            raise CheckpointError(
                f"{shown}: truncated: zip member {printable(member.filename)!r} "
                f"reaches beyond the {size:,} bytes of the file.",
                hint=_DAMAGED,
            )
    if any(name.endswith("data.pkl") for name in names):
        _check_torch_members(shown, members)
        return "zip"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    raise CheckpointError(
        f"{shown}: a zip archive, but neither torch's (no data.pkl) nor numpy's (no .npy members).",
        hint="If the checkpoint was zipped, unpack it first.",
    )


def _check_torch_members(shown: str, members: list[zipfile.ZipInfo]) -> None:
    for member in members:
        if member.filename.endswith(".pkl") and member.file_size > MAX_PICKLE_BYTES:
            raise CheckpointError(
                f"{shown}: its pickle {printable(member.filename)!r} declares "
                f"{megabytes(member.file_size)}; it was not read.",
                hint=_SMALL_PICKLES,
            )
        # torch stores every member as it is, so that tensors can be mapped into memory
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise CheckpointError(
                f"{shown}: zip member {printable(member.filename)!r} is compressed, "
                "which torch never does.",
                hint="If the checkpoint was repacked, save it again with torch.save.",
            )


def _check_legacy_pickles(path: Path, size: int) -> None:
    """Refuse a legacy file whose four leading pickles are too large, without running them."""
    if size <= MAX_PICKLE_BYTES:
        return
    with path.open("rb") as file:
        start = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    try:
        for _ in range(4):  # magic number, protocol version, machine, and the object itself
            for _ in pickletools.genops(start):
                pass
    except ValueError as error:
        raise CheckpointError(
            f"{printable(path)}: its pickle is damaged or larger than "
            f"{megabytes(MAX_PICKLE_BYTES)}; it was not read ({printable(error)}).",
            hint=_SMALL_PICKLES,
        ) from error

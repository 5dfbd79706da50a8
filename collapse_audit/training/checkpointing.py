"""Files of a run: states to resume from, and heads that others read; never half-written."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from collapse_audit.errors import CheckpointError, ParameterError, SourceError
from collapse_audit.files import refuse_special, remove_unfinished, write_atomically
from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.heads import Network, make_network
from collapse_audit.training.loop import TrainingState
from collapse_audit.words import printable

_FORMAT = "collapse-audit/head"
_DIGEST_BYTES = 32
_WRITTEN = ("config.yaml", "log.jsonl", "state.pt", "head.safetensors", "audit.json",
            "sweep.json", "sweep.md", "sweep.svg", "checkpoint_*.safetensors")  # fmt: skip
_HINT = "Free space or choose another folder; an earlier file is untouched."


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Make a folder of runs if need be; while one process trains there, another is refused."""
    lock = FileLock(folder / ".lock")  # the system's, which goes with the process however that ends
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise ParameterError(
            f"{folder}: another process trains there.",
            hint="Wait for it, or choose another folder.",
        ) from None
    except OSError as error:
        raise SourceError(f"{folder}: not usable as a run folder ({error.strerror}).") from error
    try:
        remove_unfinished(*(folder / name for name in _WRITTEN))
        for path in (found for name in _WRITTEN for found in folder.glob(name)):
            try:
                refuse_special(path.resolve())  # to open a pipe may take for ever
            except OSError as error:
                raise SourceError(
                    f"{path}: {error.strerror}.", hint="Remove it, or choose another folder."
                ) from error
        yield
    finally:
        (folder / ".lock").unlink(missing_ok=True)
        lock.release()


def write_text(path: Path, text: str) -> None:
    """Write a text file of a run in UTF-8, whole or not at all."""
    write_atomically(path, text.encode(), hint=_HINT)


def save_state(state: TrainingState, path: Path) -> None:
    """Save everything a run needs to continue; if that fails, an earlier state is untouched."""
    file = io.BytesIO()
    torch.save(state.state_dict(), file)
    # a zip archive ends in the length of its comment and the comment: here the SHA-256 of the rest
    file.seek(-2, io.SEEK_END)
    file.write(_DIGEST_BYTES.to_bytes(2, "little"))
    file.write(hashlib.sha256(file.getbuffer()).digest())
    write_atomically(path, file.getbuffer(), hint=_HINT)


def load_state(state: TrainingState, path: Path) -> None:
    """Continue from a file of :func:`save_state`, of the same configuration; filled in place."""
    device = state.student.prototypes.device
    try:
        saved = torch.load(_unaltered(path), map_location=device, weights_only=True)
        state.load_state_dict(saved)
    except Exception as error:
        raise CheckpointError(
            f"{path}: not a state to resume from ({printable(error)}).",
            hint="Nothing was changed: restore the file, or train again in another folder.",
        ) from error


def _unaltered(path: Path) -> io.BytesIO:
    content = path.read_bytes()
    if hashlib.sha256(content[:-_DIGEST_BYTES]).digest() != content[-_DIGEST_BYTES:]:
        raise ValueError("its checksum is not that of its content")
    return io.BytesIO(content)


def save_head(
    teacher: Network,
    path: Path,
    *,
    provenance: dict[str, str],
    student: Network | None = None,
    centre: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write networks as safetensors with the keys of a DINO checkpoint, provenance as metadata."""
    # the teacher's centre (k) becomes ``dino_loss.center``; no dtype keeps that of the weights
    parts = {"teacher": teacher} | ({} if student is None else {"student": student})
    tensors = {
        f"{name}.{key}": _stored(value, dtype)
        for name, part in parts.items()
        for key, value in part.state_dict().items()
    }
    if centre is not None:
        tensors["dino_loss.center"] = _stored(centre[None], dtype)
    content = save(tensors, metadata={"format": _FORMAT} | provenance)
    # safetensors writes metadata in another order each time, and equal runs give equal bytes
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    write_atomically(path, len(header).to_bytes(8, "little"), header, content[end:], hint=_HINT)


def load_network(path: Path, config: HeadTrainingConfig, width: int, *, images: bool) -> Network:
    """Read the teacher back from a head of :func:`save_head`, on the CPU, in float32."""
    try:
        refuse_special(path.resolve())
        with safe_open(path, framework="pt") as file:
            tensors = {
                key.removeprefix("teacher."): file.get_tensor(key).float()
                for key in list(file.keys())
                if key.startswith("teacher.")
            }
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({printable(error)}).",
            hint="`init=FILE` takes the head.safetensors of an earlier run.",
        ) from error
    network = make_network(config, width, images=images)
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    stored = {key: tuple(value.shape) for key, value in tensors.items()}
    wrong = [key for key in expected | stored if expected.get(key) != stored.get(key)]
    if wrong:
        raise CheckpointError(
            f"{path}: {wrong[0]} is {stored.get(wrong[0], 'missing')} in the file and "
            f"{expected.get(wrong[0], 'not used')} in this configuration.",
            hint="Give the k, d, hidden and data that the file was trained with.",
        )
    network.load_state_dict(tensors)
    return network


def _stored(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    return value.detach().cpu().to(dtype or value.dtype).contiguous().clone()

"""Files of a run: states to resume from, and heads that others read; never half-written."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from collapse_audit.errors import CheckpointError, SourceError
from collapse_audit.files import replacing, write_atomically
from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.heads import Network, make_network
from collapse_audit.training.loop import TrainingState

_FORMAT = "collapse-audit/head"
_HINT = "Free space or choose another folder; an earlier file is untouched."


def write_text(path: Path, text: str) -> None:
    """Write a text file of a run in UTF-8, whole or not at all."""
    write_atomically(path, text.encode(), hint=_HINT)


def save_state(state: TrainingState, path: Path) -> None:
    """Save everything a run needs to continue; if that fails, an earlier state is untouched."""
    content = state.state_dict()
    with replacing(path, hint=_HINT) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch has an error of its own for a full disk
            line = " ".join(str(error).split())
            reason = f"{path}: cannot be written (probably no space left: {line})."
            raise SourceError(reason, hint=_HINT) from error


def load_state(state: TrainingState, path: Path) -> None:
    """Continue from a file of :func:`save_state`, of the same configuration; filled in place."""
    device = state.student.prototypes.device
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        state.load_state_dict(saved)
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: not a state to resume from ({line}).",
            hint="Nothing was changed: restore the file, or train again in another folder.",
        ) from error


def save_head(
    network: Network,
    path: Path,
    *,
    provenance: dict[str, str],
    branch: str = "teacher",
    student: Network | None = None,
    centre: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write networks as safetensors with the keys of a DINO checkpoint, provenance as metadata."""
    # the teacher's centre (k) becomes ``dino_loss.center``; no dtype keeps that of the weights
    parts = {branch: network} | ({} if student is None else {"student": student})
    tensors = {
        f"{name}.{key}": _stored(value, dtype)
        for name, part in parts.items()
        for key, value in part.state_dict().items()
    }
    if centre is not None:
        tensors["dino_loss.center"] = _stored(centre[None], dtype)
    metadata = {"format": _FORMAT} | provenance
    write_atomically(path, save(tensors, metadata=metadata), hint=_HINT)


def load_network(
    path: Path, config: HeadTrainingConfig, width: int, *, images: bool, branch: str = "teacher"
) -> Network:
    """Read a network back from a head of :func:`save_head`, on the CPU, in float32."""
    # a file with one branch only gives that one
    try:
        with safe_open(path, framework="pt") as file:
            keys = list(file.keys())
            found = branch if any(key.startswith(f"{branch}.") for key in keys) else "teacher"
            prefix = f"{found}."
            tensors = {
                key.removeprefix(prefix): file.get_tensor(key).float()
                for key in keys
                if key.startswith(prefix)
            }
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({' '.join(str(error).split())}).",
            hint="init=FILE takes the head.safetensors of an earlier run.",
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

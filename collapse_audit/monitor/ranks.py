"""Tensors that several ranks share: who does the work, and what all have to agree on first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

#: A ``torch.distributed.DeviceMesh``: the ranks over which a tensor is sharded.
Mesh: TypeAlias = Any

_T = TypeVar("_T")


def is_distributed() -> bool:
    """Whether there are other ranks."""
    return dist.is_available() and dist.is_initialized()


def mesh_of(tensor: Tensor) -> Mesh | None:
    """The mesh of a DTensor, such as a parameter under FSDP2; ``None`` for any other tensor."""
    return getattr(tensor, "device_mesh", None)


def whole(tensor: Any) -> Tensor:
    """All of a DTensor, which every rank of its mesh has to ask for; any other tensor as it is."""
    found: Tensor = tensor if mesh_of(tensor) is None else tensor.full_tensor()
    return found


def is_main(mesh: Mesh | None) -> bool:
    """Whether this rank does the work: the first of the mesh, or rank 0."""
    if mesh is not None:
        return not any(mesh.get_coordinate() or [1])
    return not is_distributed() or dist.get_rank() == 0


def from_main(mesh: Mesh, *values: int) -> list[int]:
    """The whole numbers of the main rank, on every rank of the mesh."""
    sent = values if is_main(mesh) else [0] * len(values)
    return _reduced(mesh, sent, dist.ReduceOp.SUM)


def all_ranks(mesh: Mesh, holds: bool) -> bool:
    """Whether something holds on every rank of the mesh."""
    return bool(_reduced(mesh, [int(holds)], dist.ReduceOp.MIN)[0])


def _reduced(mesh: Mesh, values: Any, how: Any) -> list[int]:
    reduced = torch.tensor(list(values), dtype=torch.int64, device=mesh.device_type)
    for dimension in range(mesh.ndim):
        dist.all_reduce(reduced, how, group=mesh.get_group(dimension))
    return [int(value) for value in reduced.tolist()]


def attempt(work: Callable[[], _T]) -> _T | Exception:
    """What the work gives, or its error; the error holds on to no tensor of the work."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - raised again when the other ranks are through
        return error.with_traceback(None)


def result(attempted: _T | Exception) -> _T:
    """What an attempt gave; its error is raised."""
    if isinstance(attempted, Exception):
        raise attempted
    return attempted

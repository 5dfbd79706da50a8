"""Where to compute: what the name of a device means on this machine."""

from __future__ import annotations

import re

from collapse_audit.errors import ParameterError

_CUDA = re.compile(r"cuda(?::(0|[1-9][0-9]{0,2}))?")


def pick_device(name: str) -> str:
    """A device as torch takes it; a ParameterError if there is none of this name."""
    # ``"cpu"``, ``"cuda"``, ``"cuda:N"``, or ``"auto"``: a CUDA device if there is one. Torch is
    # imported to look for CUDA devices, and not for ``"cpu"``.
    if name == "cpu":
        return name
    import torch  # seconds

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    match, found = _CUDA.fullmatch(name), torch.cuda.device_count()
    if match is None or int(match[1] or 0) >= found:
        raise ParameterError(
            f"device {name!r}: unknown, or not on this machine, which has {found} CUDA devices.",
            hint="Use auto, cpu, cuda or cuda:N.",
        )
    return name

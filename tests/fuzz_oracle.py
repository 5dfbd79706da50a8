"""What torch, safetensors and numpy read in a file: run apart, for they crash and hang on damage.

``python -m tests.fuzz_oracle`` answers one request after the other on its standard streams. Both
directions speak frames: a JSON line that ends in the number of bytes which follow it.
"""

from __future__ import annotations

import collections
import functools
import io
import json
import pickle
import select
import subprocess
import sys
import types
from collections import Counter
from pathlib import Path
from typing import IO, Any

SECONDS = 30
_BYTES = 4 * 2**30
# The names of Python's own unpickler in addition to those that weights_only allows: it knows every
# operation of the language, and these cannot do anything.
_MORE = {
    "collections OrderedDict": collections.OrderedDict,
    "collections defaultdict": collections.defaultdict,
    "collections Counter": collections.Counter,
    "builtins dict": dict, "builtins list": list, "builtins tuple": tuple, "builtins set": set,
    "builtins frozenset": frozenset, "builtins complex": complex,
    "argparse Namespace": types.SimpleNamespace, "somewhere Config": types.SimpleNamespace,
}  # fmt: skip
_REBUILD = (
    "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter",
    "_rebuild_parameter_with_state", "_rebuild_device_tensor_from_cpu_tensor",
)  # fmt: skip


class Oracle:
    """The other process; a new one is started when it dies, or gives no answer for too long."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.restarts = -1

    def ask(self, kind: str, data: bytes = b"") -> dict[str, Any] | None:
        """The answer, with the bytes of ``"blobs"`` put in; ``None`` if there was none."""
        if self._process is None:
            command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz_oracle"]
            root = Path(__file__).resolve().parents[1]
            self._process = subprocess.Popen(
                command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            self.restarts += 1
            if self.ask("hello") is None:
                raise RuntimeError("the oracle does not start")
        assert self._process.stdin
        assert self._process.stdout
        try:
            _send(self._process.stdin, {"kind": kind}, data)
            limit = SECONDS if data else 120
            if select.select([self._process.stdout], [], [], limit)[0]:
                header, data = _receive(self._process.stdout)
                return header | {"blobs": data}
        except (OSError, ValueError):
            pass
        self.close()
        return None

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _send(stream: IO[bytes], header: dict[str, Any], data: bytes) -> None:
    stream.write(json.dumps(header | {"bytes": len(data)}).encode() + b"\n" + data)
    stream.flush()


def _receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    header = json.loads(stream.readline())
    return header, stream.read(header["bytes"])


# -- the other side -------------------------------------------------------------------------


class _Restricted(pickle.Unpickler):  # noqa: S301 - made to be safe
    """Python's own unpickler with names that build data."""

    def find_class(self, module: str, name: str) -> Any:
        import torch

        if (found := _MORE.get(f"{module} {name}")) is not None:
            return found
        if module == "torch._utils" and name in _REBUILD:
            return getattr(torch._utils, name).__call__  # without attributes to be written to
        if (module, name) == ("torch.nn.parameter", "Parameter"):
            return functools.partial(torch.nn.Parameter).__call__
        if name in {"Size", "UntypedStorage"}:
            return getattr(torch, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"{module}.{name}")


def _torch_answer(data: bytes) -> dict[str, Any]:
    """What torch.load gives with weights_only, or else with Python's own unpickler."""
    import torch

    module = types.ModuleType("restricted")
    module.Unpickler = _Restricted
    module.load = lambda file, **_: _Restricted(file).load()
    failures = []
    for by, options in (
        ("torch", {"weights_only": True}),
        ("python", {"weights_only": False, "pickle_module": module}),
    ):
        if b"constants.pkl" in data:
            continue  # TorchScript, which is a program
        try:
            root = torch.load(io.BytesIO(data), map_location="cpu", **options)
            return _answer(by, root)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is no answer
            failures.append(f"{type(error).__name__}: {error}"[-300:])
    return {"by": None, "why": failures, "data": b""}


def _answer(by: str, root: Any) -> dict[str, Any]:
    """Every tensor below an object, with the keys that lead to it, as the package counts them."""
    walk = _Walk()
    walk.enter(root if isinstance(root, dict) else {"prototypes": root}, (), walk.found)
    tensors, data = [], b""
    for key, tensor in walk.found.items():
        raw, dtype = _raw(tensor), str(tensor.dtype).removeprefix("torch.")
        tensors.append([key, dtype, list(tensor.shape), len(raw)])
        data += raw
    return {"by": by, "tensors": tensors, "exotic": walk.exotic[:3], "data": data}


class _Walk:
    """Goes through dictionaries and lists as the package does: each is entered a few times."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}
        self.exotic: list[str] = []
        self._entered: Counter[int] = Counter()
        self._above: list[int] = []

    def enter(self, node: Any, path: tuple[str, ...], found: dict[str, Any]) -> None:
        import torch

        from collapse_audit.containers.limits import DEPTH, ENTRIES, KEY_CHARACTERS
        from collapse_audit.containers.pickled import key_name

        if sum(map(len, path)) > KEY_CHARACTERS:
            return
        if isinstance(node, torch.Tensor):
            lazy = node.is_neg() or node.is_conj() or node.is_quantized
            if node.layout is torch.strided and node.device.type == "cpu" and not lazy:
                found.setdefault("/".join(path), node.detach())
            else:
                self.exotic.append("a tensor of another kind")
        elif isinstance(node, dict | list | tuple):
            self._entered[id(node)] += 1
            if id(node) in self._above or len(path) >= DEPTH or self._entered[id(node)] > ENTRIES:
                return
            self._above.append(id(node))
            for key, child in node.items() if isinstance(node, dict) else enumerate(node):
                if isinstance(child, str | int | float | bytes | None):
                    continue
                long = isinstance(key, int) and key.bit_length() > 63
                if long or not isinstance(key, str | int | float | bytes | None):
                    self.exotic.append("a key that is no plain value")
                    self.enter(child, (*path, ""), {})
                else:
                    self.enter(child, (*path, key_name(key)), found)
            self._above.pop()
        else:
            self.exotic.append(type(node).__name__)


def _raw(tensor: Any) -> bytes:
    import torch

    if 0 in tensor.shape:
        return b""
    if tensor.dtype is torch.bfloat16:  # as the package gives it
        tensor = tensor.float()
    raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return bytes(map(bool, raw)) if tensor.dtype is torch.bool else bytes(raw)


def _array_answer(by: str, arrays: dict[str, Any]) -> dict[str, Any]:
    tensors = [[k, a.dtype.name, list(a.shape), a.nbytes] for k, a in arrays.items()]
    data = b"".join(a.astype(a.dtype.newbyteorder("=")).tobytes() for a in arrays.values())
    return {"by": by, "tensors": tensors, "exotic": [], "data": data}


def _numpy_answer(data: bytes) -> dict[str, Any]:
    import numpy as np

    try:
        held = np.load(io.BytesIO(data), allow_pickle=False)
        arrays = {"prototypes": held} if isinstance(held, np.ndarray) else dict(held)
    except BaseException as error:  # noqa: BLE001
        return {"by": None, "why": [repr(error)[:200]], "data": b""}
    return _array_answer("numpy", arrays)


def _safetensors_answer(data: bytes) -> dict[str, Any]:
    import safetensors.torch

    try:
        return _answer("safetensors", safetensors.torch.load(data))
    except BaseException as error:  # noqa: BLE001
        return {"by": None, "why": [repr(error)[:200]], "data": b""}


def _checkpoints(_: bytes) -> dict[str, Any]:
    from tests.fuzz_files import checkpoints

    names, data = [], b""
    for name, (main, files) in checkpoints().items():
        names.append([name, main, [[file, len(content)] for file, content in files.items()]])
        data += b"".join(files.values())
    return {"checkpoints": names, "data": data}


def main() -> None:
    """Answer until the other side closes."""
    import resource

    import torch

    resource.setrlimit(resource.RLIMIT_DATA, (_BYTES, _BYTES))
    torch.set_num_threads(1)
    answer = {
        "torch": _torch_answer,
        "numpy": _numpy_answer,
        "safetensors": _safetensors_answer,
        "checkpoints": _checkpoints,
        "hello": lambda _: {"data": b""},
    }
    source, target = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = io.StringIO()
    while True:
        try:
            header, data = _receive(source)
        except ValueError:
            return
        reply = answer[header["kind"]](data)
        _send(target, {k: v for k, v in reply.items() if k != "data"}, reply["data"])


if __name__ == "__main__":
    main()

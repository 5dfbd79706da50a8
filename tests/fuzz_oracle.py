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
import tempfile
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
    "_rebuild_device_tensor_from_numpy",
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
        import numpy as np
        import torch

        if (module, name) == ("numpy._core.multiarray", "_reconstruct"):
            return np._core.multiarray._reconstruct
        if module == "numpy" and name in {"ndarray", "dtype"}:
            return getattr(np, name)

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
        from collapse_audit.containers.tensors import WIDTHS

        if sum(map(len, path)) > KEY_CHARACTERS:
            return
        if isinstance(node, torch.Tensor):
            lazy = node.is_neg() or node.is_conj() or node.is_quantized
            if str(node.dtype).removeprefix("torch.") not in WIDTHS:
                return  # by no name: another tensor may have a key that looks alike
            if node.layout is torch.strided and node.device.type == "cpu" and not lazy:
                found.setdefault("/".join(path), node.detach())
            else:
                self.exotic.append("a tensor of another kind")
        elif isinstance(node, dict | list | tuple):
            if id(node) in self._above or len(path) >= DEPTH:
                return
            self._entered[id(node)] += 1
            if self._entered[id(node)] > ENTRIES:
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
    elif "float8" in str(tensor.dtype):  # of which the NaNs are all alike
        tensor = tensor.float()
        tensor = torch.where(tensor.isnan(), torch.nan, tensor)
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


class _OfDcp(pickle.Unpickler):  # noqa: S301 - made to be safe
    """Reads the index of a run with the names that torch writes into it, and no others."""

    def find_class(self, module: str, name: str) -> Any:
        of_run = module.startswith("torch.distributed.checkpoint.") and name in _CLASSES
        plain = module == "torch" and name in _TYPES
        if of_run or plain or (module, name) in _OTHERS:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name}")


_CLASSES = frozenset({
    "Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata", "StorageMeta",
    "ChunkStorageMetadata", "TensorProperties", "_MEM_FORMAT_ENCODING", "_StorageInfo",
})  # fmt: skip
_TYPES = frozenset({"Size", "float32", "float64", "float16", "bfloat16", "int64", "bool"})
_OTHERS = frozenset({("torch.serialization", "_get_layout"), ("pathlib", "PosixPath")})


def _folder_answer(kind: str, data: bytes) -> dict[str, Any]:
    """What torch.distributed.checkpoint or safetensors read in a folder, one tensor at a time."""
    import torch

    from collapse_audit.containers.pickled import key_name

    found, failures = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for name, content in pickle.loads(data).items():  # noqa: S301 - of the parent
            (Path(folder) / name).write_bytes(content)
        try:
            readers = _of_shards(folder) if kind == "shards" else _of_run(folder, kind)
        except BaseException as error:  # noqa: BLE001
            return {"by": None, "why": [repr(error)[:200]], "data": b""}
        for path, read in readers:
            try:
                tensor = read()
            except BaseException as error:  # noqa: BLE001
                failures.append(repr(error)[:200])
                continue
            if isinstance(tensor, torch.Tensor):
                found["/".join(map(key_name, path))] = tensor
        answer = _answer(kind, found)  # safe_open maps the file
    return answer | {"exotic": failures[:3]}


def _of_shards(folder: str) -> list[tuple[tuple[Any, ...], Any]]:
    import safetensors

    (index,) = Path(folder).glob("*.index.json")
    where = json.loads(index.read_bytes())["weight_map"]

    def read(file: str, key: str) -> Any:
        with safetensors.safe_open(Path(folder) / file, "pt") as shard:
            return shard.get_tensor(key)

    return [((key,), functools.partial(read, file, key)) for key, file in where.items()]


def _of_run(folder: str, kind: str) -> list[tuple[tuple[Any, ...], Any]]:
    import torch
    from torch.distributed import checkpoint as dcp
    from torch.distributed.checkpoint import filesystem
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    module = types.ModuleType("restricted")
    module.load = lambda file: _OfDcp(file).load()
    filesystem.pickle = module
    reader = dcp.FileSystemReader if kind == "dcp" else HuggingFaceStorageReader
    described = reader(folder).read_metadata()

    def read(key: Any, held: Any) -> Any:
        state = {key: torch.zeros(held.size, dtype=held.properties.dtype)}
        dcp.load(state, storage_reader=reader(folder), no_dist=True)
        return state[key]

    paths = described.planner_data or {}
    return [
        (paths.get(key) or (key,), functools.partial(read, key, held))
        for key, held in described.state_dict_metadata.items()
        if isinstance(held, dcp.metadata.TensorStorageMetadata)
    ]


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
        **{kind: functools.partial(_folder_answer, kind) for kind in ("dcp", "run", "shards")},
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

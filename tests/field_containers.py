"""Files and folders around the weights, small: those to read, and those that need a clear word."""

from __future__ import annotations

import io
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save_file

from tests.planted import D, Head, Layouts, chain, dino, noise, normed, plain, rows, under, vit

CONTAINERS = Layouts()
HEAD = Head("teacher.head.last_layer", 30)
TEACHER = under("teacher.", dino(30))


def _shards(folder: Path, name: str, *parts: dict[str, Any]) -> Path:
    """Files as huggingface_hub splits them, and their index."""
    stem, suffix = name.split(".", 1)
    where = {}
    for i, part in enumerate(parts, 1):
        file = f"{stem}-{i:05}-of-{len(parts):05}.{suffix}"
        where |= dict.fromkeys(part, file)
        if suffix == "bin":
            torch.save(part, folder / file)
        else:
            save_file(part, folder / file, {"format": "pt"})
    index = folder / f"{name}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": where}))
    return index


def _split() -> tuple[dict[str, Any], ...]:
    """The scale in one part and the directions in the other."""
    keys = list(TEACHER)
    return {k: TEACHER[k] for k in keys[:-1]}, {keys[-1]: TEACHER[keys[-1]]}


@CONTAINERS.file("transformers: save_pretrained(safe_serialization=False)", HEAD)
def sharded_bin(folder: Path) -> Path:
    return _shards(folder, "pytorch_model.bin", *_split())


@CONTAINERS.file("huggingface_hub: split_torch_state_dict_into_shards", HEAD)
def sharded_safetensors(folder: Path) -> Path:
    return _shards(folder, "model.safetensors", *_split())


@CONTAINERS.file("transformers: the folder of sharded torch files", HEAD)
def folder_of_sharded_bin(folder: Path) -> Path:
    (folder / "config.json").write_text("{}")
    return _shards(folder, "pytorch_model.bin", *_split()).parent


@CONTAINERS.file("huggingface_hub: one shard that has the whole head", HEAD)
def shard_with_the_head(folder: Path) -> Path:
    index = _shards(folder, "model.safetensors", vit(), TEACHER)
    index.unlink()
    (folder / "model-00001-of-00002.safetensors").unlink()
    return folder / "model-00002-of-00002.safetensors"


@CONTAINERS.file("huggingface_hub: one shard, the scales are in the other", HEAD,
                 refusal="(?i)shard|of-00002|index.json")  # fmt: skip
def shard_with_half_a_head(folder: Path) -> Path:
    _shards(folder, "model.safetensors", *_split()).unlink()
    (folder / "model-00001-of-00002.safetensors").unlink()
    return folder / "model-00002-of-00002.safetensors"


@CONTAINERS.file("huggingface_hub: one shard, the head is in the other",
                 refusal="(?i)shard|of-00002|index.json")  # fmt: skip
def shard_without_the_head(folder: Path) -> Path:
    _shards(folder, "model.safetensors", vit("teacher.backbone."), TEACHER).unlink()
    (folder / "model-00002-of-00002.safetensors").unlink()
    return folder / "model-00001-of-00002.safetensors"


@CONTAINERS.file("huggingface_hub: an index whose shards were not downloaded",
                 refusal=r"model-00001-of-00002\.safetensors")  # fmt: skip
def index_without_its_shards(folder: Path) -> Path:
    index = _shards(folder, "model.safetensors", *_split())
    (folder / "model-00001-of-00002.safetensors").unlink()
    return index


@CONTAINERS.file("huggingface_hub: the folder of a model", HEAD)
def folder_of_a_model(folder: Path) -> Path:
    (folder / "config.json").write_text("{}")
    save_file(TEACHER, folder / "model.safetensors", {"format": "pt"})
    return folder


@CONTAINERS.file("peft: the folder of an adapter", Head("head.last_layer", 30))
def folder_of_an_adapter(folder: Path) -> Path:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    adapter = normed("base_model.model.head.last_layer", 30)
    lora = {"base_model.model.blocks.0.attn.qkv.lora_A.weight": noise(4, 16)}
    save_file(lora | adapter, folder / "adapter_model.safetensors", {"format": "pt"})
    return folder


@CONTAINERS.file("safetensors: flat keys of one network", HEAD)
def flat_safetensors(folder: Path) -> Path:
    save_file(TEACHER | under("student.", dino(40)), folder / "model.safetensors")
    return folder / "model.safetensors"


@CONTAINERS.file("torch.distributed.checkpoint; torchtitan, dinov3, accelerate's FSDP",
                 Head("head.last_layer", 30))  # fmt: skip
def distributed_checkpoint(folder: Path) -> Path:
    from torch.distributed import checkpoint as dcp

    state = {"model": {"student": dino(40), "teacher": dino(30)}, "iteration": 1249}
    with warnings.catch_warnings(action="ignore"):
        dcp.save(state, checkpoint_id=folder / "1249", no_dist=True)
    return folder / "1249"


@CONTAINERS.file("torch.distributed.checkpoint: HuggingFaceStorageWriter", HEAD)
def distributed_checkpoint_in_safetensors(folder: Path) -> Path:
    from torch.distributed import checkpoint as dcp

    writer = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with warnings.catch_warnings(action="ignore"):
        dcp.save(dict(TEACHER), storage_writer=writer, no_dist=True)
    return folder


@contextmanager
def _processes(backend: str, size: int) -> Iterator[Any]:
    """A process group of one thread, of which this is rank 0."""
    from torch.distributed.device_mesh import init_device_mesh

    store = dist.HashStore()
    if backend == "fake":
        from torch.testing._internal.distributed.fake_pg import FakeStore

        store = FakeStore()
    dist.init_process_group(backend, store=store, rank=0, world_size=size)
    try:
        yield init_device_mesh("cpu", (size,))
    finally:
        dist.destroy_process_group()


def _dtensors(folder: Path, backend: str, ranks: int) -> Path:
    from torch.distributed.tensor import DTensor, Shard

    with _processes(backend, ranks) as mesh:
        state = {
            key: DTensor.from_local(t[: len(t) // ranks], mesh, [Shard(0)], run_check=False)
            for key, t in normed("head.last_layer", 30).items()
        }
        torch.save({"teacher": vit() | state}, folder / "checkpoint.pth")
    return folder / "checkpoint.pth"


@CONTAINERS.file("torch: FSDP2 on one device, torch.save(model.state_dict())", HEAD,
                 refusal="DTensor")  # fmt: skip
def dtensor_that_is_whole(folder: Path) -> Path:
    return _dtensors(folder, "gloo", 1)


@CONTAINERS.file("torch: FSDP2, torch.save(model.state_dict()) of one rank", refusal="DTensor")
def dtensor_of_one_rank(folder: Path) -> Path:
    return _dtensors(folder, "fake", 2)


@CONTAINERS.file("torch: FSDP with StateDictType.SHARDED_STATE_DICT", HEAD,
                 refusal="(?i)shard")  # fmt: skip
def sharded_tensor(folder: Path) -> Path:
    from torch.distributed._shard import sharded_tensor as api
    from torch.distributed._shard.sharding_spec import ShardMetadata

    weight = rows(30)
    with _processes("gloo", 1), warnings.catch_warnings(action="ignore"):
        where = ShardMetadata([0, 0], list(weight.shape), placement="rank:0/cpu")
        sharded = api.init_from_local_shards([api.Shard(weight, where)], *weight.shape)
        torch.save({"teacher": {"head.last_layer.weight": sharded}}, folder / "rank0.pth")
    return folder / "rank0.pth"


def _zero_3() -> dict[str, Any]:
    """Placeholders: what a rank holds of its parameters is in the optimiser's file."""
    shapes = {key: tensor.shape for key, tensor in TEACHER.items()}
    return {
        "module": {key: torch.empty(0) for key in TEACHER},
        "param_shapes": [shapes],
        "buffer_names": [],
        "ds_config": {"zero_optimization": {"stage": 3}},
        "ds_version": "0.14.0",
    }


@CONTAINERS.tree("DeepSpeed: runtime/engine.py, ZeRO-3", refusal=r"zero_to_fp32\.py",
                 name="zero_pp_rank_0_mp_rank_00_model_states.pt")  # fmt: skip
def zero_3_model_states() -> Any:
    return _zero_3()


@CONTAINERS.tree("DeepSpeed: a state dict saved by hand under ZeRO-3", refusal=r"zero_to_fp32\.py")
def zero_3_placeholders() -> Any:
    return _zero_3()["module"]


@CONTAINERS.tree("DeepSpeed: utils/zero_to_fp32.py", refusal=r"zero_to_fp32\.py",
                 name="zero_pp_rank_0_mp_rank_00_optim_states.pt")  # fmt: skip
def zero_3_optimiser_states() -> Any:
    flat = {"zero_stage": 3, "partition_count": 2, "fp32_flat_groups": [noise(2000)]}
    return {"optimizer_state_dict": flat, "ds_version": "0.14.0"}


@CONTAINERS.file("DeepSpeed: the folder of a run", refusal=r"zero_to_fp32\.py")
def folder_of_deepspeed(folder: Path) -> Path:
    step = folder / "global_step100"
    step.mkdir()
    torch.save(_zero_3(), step / "zero_pp_rank_0_mp_rank_00_model_states.pt")
    (folder / "latest").write_text("global_step100")
    (folder / "zero_to_fp32.py").write_text("# DeepSpeed puts its script here\n")
    return folder


@CONTAINERS.tree("DeepSpeed: ZeRO-1 and 2 keep the parameters whole", HEAD,
                 name="mp_rank_00_model_states.pt")  # fmt: skip
def zero_1_model_states() -> Any:
    shapes = [{key: tensor.shape for key, tensor in TEACHER.items()}]
    return {"module": TEACHER, "param_shapes": shapes, "dp_world_size": 2, "global_steps": 9}


class _Student(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = torch.nn.Linear(16, 16)
        self.prototypes = torch.nn.Linear(D, 60, bias=False)
        self.prototypes.weight.data = rows(30).clone()


@CONTAINERS.tree("torch: torch.save(model)", Head("prototypes", 30), refusal="state_dict",
                 name="model.pt")  # fmt: skip
def whole_module() -> Any:
    return _Student()


@CONTAINERS.tree("torch: a module beside the state dict that is wanted", Head("prototypes", 30))
def module_beside_a_state_dict() -> Any:
    model = _Student()
    return {"state_dict": model.state_dict(), "model": model}


@CONTAINERS.file("dinov2 issue 574; torch.jit.save", Head("prototypes", 30),
                 refusal="TorchScript")  # fmt: skip
def torchscript(folder: Path) -> Path:
    with warnings.catch_warnings(action="ignore"):
        torch.jit.script(_Student()).save(folder / "head.pt")
    return folder / "head.pt"


@CONTAINERS.file("torch.export.save", refusal=r"(?i)torch\.export|\.pt2|exported")
def exported_program(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "head.pt2", "w") as archive:
        for name in ("archive_format", "models/model.json", "data/weights/model.pt"):
            archive.writestr(f"head/{name}", "pt2")
    return folder / "head.pt2"


@CONTAINERS.file("detectron2, cvpods: a plain pickle of arrays", Head("prototypes", 30),
                 refusal="(?is)^(?!.*paddle).*pickle")  # fmt: skip
def plain_pickle(folder: Path) -> Path:
    state = chain("projection_head", (0, 2)) | plain("prototypes", 30)
    model = {"model": {key: tensor.numpy() for key, tensor in state.items()}, "__author__": "us"}
    (folder / "model_final.pkl").write_bytes(pickle.dumps(model))
    return folder / "model_final.pkl"


@CONTAINERS.file("PASSL: paddle.save", Head("prototypes", 30), refusal="(?i)paddle")
def paddle(folder: Path) -> Path:
    state = {"prototypes.weight": rows(30).numpy().T, "StructuredToParameterName@@": {}}
    (folder / "swav.pdparams").write_bytes(pickle.dumps(state, protocol=4))
    return folder / "swav.pdparams"


def _msgpack(value: Any) -> bytes:
    """As flax.serialization writes it: an array is extension 1 of shape, type and bytes."""
    if isinstance(value, dict):
        items = b"".join(_msgpack(k) + _msgpack(v) for k, v in value.items())
        return bytes([0x80 | len(value)]) + items
    if isinstance(value, str):
        return bytes([0xA0 | len(value)]) + value.encode()
    if isinstance(value, tuple):
        return bytes([0x90 | len(value)]) + b"".join(map(_msgpack, value))
    if isinstance(value, int):
        return b"\xcd" + struct.pack(">H", value)
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    content = _msgpack((value.shape, value.dtype.name, value.tobytes()))
    return b"\xc9" + struct.pack(">Ib", len(content), 1) + content


@CONTAINERS.file("flax: training.checkpoints", refusal="(?i)flax|msgpack")
def flax_msgpack(folder: Path) -> Path:
    head = {"prototypes": {"kernel": rows(30).numpy().T.copy()}}
    (folder / "checkpoint_100").write_bytes(_msgpack({"step": 100, "params": {"head": head}}))
    return folder / "checkpoint_100"


@CONTAINERS.file("orbax: the folder of a checkpoint", refusal="(?i)orbax")
def orbax(folder: Path) -> Path:
    for name in ("_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt", "d/0"):
        (folder / "100" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "100" / name).write_text("{}")
    return folder / "100"


def _zipped(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, "{}")
    return content.getvalue()


_ONNX = b'\x08\x08\x12\x07pytorch\x1a\x052.4.0:\x10\n\x0e\n\x01x\x12\x01y\x1a\x06head"\x00'
_LEVELDB = bytes(40) + bytes.fromhex("57fb808b247547db")
for _name, _content, _says in (
    ("model.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "(?i)keras|hdf5"),
    ("swav.weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "(?i)keras|hdf5"),
    ("swav.keras", _zipped("metadata.json", "config.json", "model.weights.h5"), "(?i)keras"),
    ("model.ckpt-100.index", _LEVELDB, "(?i)tensorflow"),
    ("model.ckpt-100.data-00000-of-00001", rows(30).numpy().tobytes(), "(?i)tensorflow"),
    ("saved_model.pb", b"\x08\x01\x12\x02\x0a\x00" + bytes(100), "(?i)tensorflow"),
    ("dino_vits16.onnx", _ONNX, "(?i)onnx"),
    ("dino.gguf", b"GGUF\x03\x00\x00\x00" + bytes(100), "(?i)gguf"),
    ("checkpoint.pth.tar.gz", b"\x1f\x8b\x08\x00" + bytes(100), "(?i)gzip|unpack|gunzip"),
    ("pretrain.zip", _zipped("checkpoint.pth", "config.yaml"), "(?i)unpack|unzip|zip archive"),
):

    def _foreign(folder: Path, name: str = _name, content: bytes = _content) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    _foreign.__name__ = _name
    CONTAINERS.file("another program's file, by its first bytes", refusal=_says)(_foreign)


@CONTAINERS.file("numpy: a flat state dict", Head("head.last_layer", 30))
def state_dict_in_npz(folder: Path) -> Path:
    np.savez(folder / "teacher.npz", **{key: t.numpy() for key, t in dino(30).items()})
    return folder / "teacher.npz"

"""What a file is that no reader here takes, as far as its bytes tell, and what to do about it."""

from __future__ import annotations

from collapse_audit.containers.torch_legacy import LEGACY_MAGIC
from collapse_audit.words import megabytes

_FORMATS = "Give a .pth, .ckpt, .safetensors, .npy or .npz file, or the folder of a checkpoint."
_DAMAGED = "Download the file again and compare its size with the source."
_UNPACK = "Unpack it and give the checkpoint inside."
_SAVE = (
    "Load it where it was trained and save the prototypes (K x D) with numpy.savez or safetensors."
)
_PACKED = (b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh", b"7z\xbc\xaf")
WEB_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")


def describe_foreign(head: bytes, size: int, file: str) -> tuple[str, str]:
    """What a file is, of its first 512 bytes, size and name; and what to do about it."""
    text, lower = head.lstrip().lower(), file.lower()
    is_pickle = head.startswith(b"\x80")
    paddle = is_pickle and lower.endswith((".pdparams", ".pdopt"))
    tensorflow = (
        ".data-0" in lower
        or lower == "saved_model.pb"
        or (".ckpt" in lower and lower.endswith((".index", ".meta")))
    )
    # a map of few entries, then a short text: msgpack, as Flax writes its state
    flax = len(head) > 1 and 0x80 < head[0] < 0x90 and 0xA0 < head[1] < 0xC0
    for recognised, what, hint in (
        (size == 0, "empty (0 bytes)", _DAMAGED),
        (text.startswith(WEB_PAGES), "a web page, not a checkpoint", _DAMAGED),
        (text.startswith(b"version https://git-lfs"), "a Git LFS pointer", "Run git lfs pull."),
        (head[257:262] == b"ustar", "a tar archive, which is not read", _UNPACK),
        (head.startswith(b"\x1f\x8b"), "gzip-compressed", _UNPACK),
        (head.startswith(_PACKED), "compressed", _UNPACK),
        (head.startswith(b"\x89HDF"), "an HDF5 file, as Keras writes them", _SAVE),
        (head.startswith(b"GGUF"), "a GGUF file of llama.cpp", _SAVE),
        (lower.endswith(".onnx"), "an ONNX graph, which does not name its layers", _SAVE),
        ((b"\x80\x02" + LEGACY_MAGIC).startswith(head), f"truncated after {size} bytes", _DAMAGED),
        (paddle, "a pickle of Paddle (.pdparams)", _SAVE),
        (is_pickle, "a plain Python pickle, which is never executed", _SAVE),
        (flax, "a msgpack file, as Flax and JAX write them", _SAVE),
        (tensorflow, "part of a TensorFlow checkpoint", _SAVE),
    ):
        if recognised:
            return what, hint
    return f"not a checkpoint format known here ({megabytes(size)})", _FORMATS

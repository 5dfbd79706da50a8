"""Small files that ask for much time or memory: they get little of either."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.containers.test_index_machine import STEPS, V, tensor, with_index
from tests.small_checkpoints import safetensors_of

OBJECT = b"cfoo\nBar\n)R"


def doubled(depth: int) -> bytes:
    """A tuple of two tuples of two tuples ..., in few operations."""
    return b")q\x00" + b"h\x00\x86q\x00" * depth


def text(content: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(content)) + content


def long_keys() -> bytes:
    """Keys of 1,000 characters inside one another, and 200,000 tensors below all of them."""
    tensors = b"".join(b"J" + struct.pack("<i", i) + b"h\x00" for i in range(200_000))
    keys = (text(b"d" * 1000) + b"}") * 30
    return tensor(b"K\x00", V, STEPS) + b"q\x000}" + keys + b"(" + tensors + b"u" + b"s" * 30


def many_modules() -> bytes:
    """A script of 60,000 parts, all of them one object whose attributes are 60,000 twice."""
    numbers = [b"J" + struct.pack("<i", i) for i in range(60_000)]
    attributes = b"}(" + b"".join(number + b"N" for number in numbers) + b"u"
    parts = b"}(" + b"".join(number + b"h\x01" for number in numbers) + b"u"
    part = OBJECT + attributes + b"q\x00h\x00\x86bq\x010"
    return part + b"c__torch__.a\nB\n)R" + parts + b"b"


MEGABYTES = text(b"x" * 8 * 1024**2) + b"q\x000"
NUMBER = b"\x8b" + struct.pack("<i", 2501) + (1 << 20_000).to_bytes(2501, "little")
PROGRAMS = {
    "nested tuples as a key": b"}" + doubled(60) + b"K\x01s",
    "an object of nested tuples as a key": b"}" + OBJECT + doubled(60) + b"bK\x01s",
    "a deep object as a key": b"}" + OBJECT + b")" + b"\x85" * 50_000 + b"bK\x01s",
    "an integer of 20,000 bits as a key": b"}" + NUMBER + b"K\x01s",
    "a name of 8 MB, again and again": MEGABYTES + b"h\x00h\x00\x930" * 200_000 + b"N",
    "a key of 8 MB in many dictionaries": MEGABYTES + b"](" + b"}h\x00Ns" * 200_000 + b"e",
    "a key of many bytes in many dictionaries": b"B"
    + MEGABYTES[1:] + b"](" + b"}h\x00Ns" * 200_000 + b"e",
    "dictionaries of one another": b"}q\x00"
    + b"".join(b"}q%c(K\x01h%cK\x02h%cu" % (i, i - 1, i - 1) for i in range(1, 200)),
    "lists inside one another": b"]" * 100_000 + b"a" * 99_999,
    "long keys inside one another": long_keys(),
    "many parts of a script": many_modules(),
    "many tensors of few operations": tensor(b"K\x00", V, STEPS) + b"q\x000}("
    + b"".join(b"J" + struct.pack("<i", i) + b"h\x00" for i in range(100_000)) + b"u",
}  # fmt: skip


def many_heads() -> bytes:
    """12,000 prototype layers and as many projection heads, each beside all others."""
    header = {}
    for i in range(12_000):
        for key, at in ((f"a{i}.last_layer.weight", 48 * i), (f"a{i}.head.0.weight", 48 * i + 24)):
            header[key] = {"dtype": "F32", "shape": [2, 3], "data_offsets": [at, at + 24]}
    return safetensors_of(header, bytes(48 * 12_000))


FILES = {name: with_index(b"\x80\x02" + program + b".") for name, program in PROGRAMS.items()}
FILES["many heads"] = many_heads()
CODE = """
import resource, sys
from collapse_audit.errors import CollapseAuditError
from collapse_audit.sources import describe_source, resolve_source
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
try:
    describe_source(resolve_source(sys.argv[1]))
except CollapseAuditError:
    pass
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other limits")
@pytest.mark.parametrize("name", FILES)
def test_no_file_takes_long_or_much_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / "slow.pth"
    path.write_bytes(FILES[name])
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

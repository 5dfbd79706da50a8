from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np

from collapse_audit.checkpoints import load_prototypes
from collapse_audit.examples import embedded_head


def test_the_embedded_head_is_small_readable_by_all_and_described() -> None:
    path = embedded_head()
    readme = path.with_name("README.md").read_text(encoding="utf-8")
    assert path.stat().st_size < 300_000
    assert path.stat().st_mode & 0o444 == 0o444  # safetensors writes files for the owner only
    assert sha256(path.read_bytes()).hexdigest() in readme
    assert f"{path.stat().st_size:,} bytes" in readme


def test_the_embedded_head_says_in_itself_where_it_comes_from() -> None:
    from safetensors import safe_open

    with safe_open(embedded_head(), framework="np") as stream:
        metadata = stream.metadata()
        keys = set(stream.keys())
    assert keys == {"head.last_layer.weight_g", "head.last_layer.weight_v"}
    assert "github.com/facebookresearch/dino" in metadata["collapse_audit.origin"]
    assert metadata["collapse_audit.planted"].startswith("true")


def test_the_embedded_head_is_the_teacher_it_was_taken_from(shared_checkpoints: Path) -> None:
    original = load_prototypes(shared_checkpoints / "dino_vit_full_norm.pth", branch="teacher")
    np.testing.assert_array_equal(load_prototypes(embedded_head()).rows, original.rows)

"""Every layout that a method repository writes gives its heads.

The oracle is the seed: each layer has its own numbers, so that only the right tensor passes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from collapse_audit.sources import describe_source, load_prototypes, resolve_source
from tests.checkpoint_layouts import LAYOUTS, D, K, Layout, values


def check(path: Path, layout: Layout) -> None:
    found = resolve_source(path).heads
    assert sorted((str(h.branch), h.name) for h in found) == sorted(
        (str(branch), name) for branch, name in layout.heads
    )
    for head in found:
        seed = layout.heads[head.branch, head.name]
        k = layout.sizes.get(head.name, K)
        loaded = load_prototypes(path, branch=head.branch or "teacher", head=head.name)
        np.testing.assert_array_equal(loaded.rows, values(seed, k, D).numpy())
        if head.scale_key:
            scale = values(seed + 1000, k, 1).abs() + 0.5
            np.testing.assert_array_equal(loaded.norms, scale[:, 0].double().numpy())
        if layout.bias:
            assert loaded.bias is not None
            np.testing.assert_array_equal(loaded.bias, values(seed + 2000, k).double().numpy())
        else:
            assert loaded.bias is None
        assert loaded.tensor_keys == head.tensor_keys
        assert (loaded.branch, loaded.name) == (head.branch, head.name)
    description = describe_source(resolve_source(path))
    (default,) = (head for head in description["heads"] if head["default"])
    assert (default["branch"], default["name"]) == layout.default
    assert description["source"]["family"] == layout.family


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.filterwarnings("ignore:.*took the student")
def test_every_layout_gives_its_heads(name: str, is_zip: bool, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save(LAYOUTS[name].tree, path, _use_new_zipfile_serialization=is_zip)
    check(path, LAYOUTS[name])


@pytest.mark.parametrize(
    "name",
    ["SwAV", "CAPI student", "CAPI teacher: online clustering with a bias",
     "Web-SSL heads file", "RAD-DINO: a head alone", "DeepCluster-v2: three heads, never pooled"],
)  # fmt: skip
def test_flat_layouts_may_be_safetensors(name: str, tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    save_file(dict(LAYOUTS[name].tree), path)
    check(path, LAYOUTS[name])

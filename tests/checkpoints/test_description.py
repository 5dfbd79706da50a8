"""What is said of a file without reading its matrices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from collapse_audit.checkpoints.description import describe
from collapse_audit.errors import CheckpointError
from collapse_audit.report.info_documents import InfoDocument
from collapse_audit.sources import describe_source, load_heads, load_prototypes, resolve_source
from tests.checkpoint_layouts import LAYOUTS
from tests.small_checkpoints import checkpoint_of


def described(tree: Any, folder: Path) -> InfoDocument:
    torch.save(tree, folder / "x.pth")
    return describe_source(resolve_source(folder / "x.pth"))


def test_centres_are_listed(tmp_path: Path) -> None:
    loss = {"center": torch.ones(1, 6), "center2": torch.ones(1, 6), "centered": torch.ones(1)}
    head = {"head.last_layer.weight": torch.randn(6, 4)}
    description = described({"teacher": head, "ibot_loss": loss}, tmp_path)
    assert description["centre_keys"] == ["ibot_loss/center", "ibot_loss/center2"]
    assert description["source"]["family"] == "ibot"


def test_no_matrix_is_read_and_no_centre_of_another_size() -> None:
    shapes = {"teacher/head.last_layer.weight": (9, 4), "loss/center": (1, 8), "x": (2, 3, 4)}
    description = describe(checkpoint_of(shapes), "x.pth", "dino")
    assert description["heads"][0]["k"] == 9
    assert description["matrices"] == [
        {"key": "teacher/head.last_layer.weight", "shape": [9, 4], "dtype": "float32"},
        {"key": "loss/center", "shape": [1, 8], "dtype": "float32"},
        {"key": "x", "shape": [2, 3, 4], "dtype": "float32"},
    ]


def test_nested_keys_are_counted_below_the_outermost(tmp_path: Path) -> None:
    state = {"a.x": torch.ones(2), "a.y": torch.ones(3), "b": torch.ones(4)}
    optimizer = {"state": {i: {"exp_avg": torch.ones(2)} for i in range(3)}}
    description = described({"model": state, "optimizer": optimizer, "epoch": 3}, tmp_path)
    top_level = [(count["key"], count["tensors"]) for count in description["top_level"]]
    assert top_level == [("model", 3), ("optimizer", 3), ("epoch", 0)]
    tree = [(count["module"], count["tensors"], count["values"]) for count in description["tree"]]
    assert tree == [("model/a", 2, 5), ("model/b", 1, 4), ("optimizer/state", 3, 6)]


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.filterwarnings("ignore:.*took the student")
@pytest.mark.filterwarnings("ignore:.*took head")
def test_what_is_marked_is_what_is_loaded(name: str, tmp_path: Path) -> None:
    description = described(LAYOUTS[name].tree, tmp_path)
    path = tmp_path / "x.pth"
    document = json.loads(json.dumps(description))
    marked = [(h["name"], h["branch"]) for h in document["heads"] if h["audited"]]
    assert marked == [(p.name, p.branch) for p in load_heads(path)]
    (default,) = (h for h in document["heads"] if h["default"])
    loaded = load_prototypes(path)
    assert (default["name"], default["branch"]) == (loaded.name, loaded.branch)


def test_where_a_choice_is_needed_nothing_is_marked(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", features=np.ones((3, 4)), weight=np.eye(4))
    description = describe_source(resolve_source(tmp_path / "x.npz"))
    marks = [(head["audited"], head["default"]) for head in description["heads"]]
    assert marks == [(False, False), (False, False)]
    with pytest.raises(CheckpointError, match="Choose a head"):
        load_heads(tmp_path / "x.npz")


def test_a_file_without_heads_is_described_too(tmp_path: Path) -> None:
    state = {"blocks.0.weight": torch.ones(3, 3), "norm.weight": torch.ones(3), "epoch": 2}
    description = described(state, tmp_path)
    assert (description["heads"], description["source"]["family"]) == ([], None)
    (matrix,) = description["matrices"]
    assert matrix == {"key": "blocks.0.weight", "shape": [3, 3], "dtype": "float32"}

"""`collapse-audit info`: what is in a file, and what of it an audit would take."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

from collapse_audit.report.schema import document_schema
from tests.checkpoint_layouts import LAYOUTS
from tests.cli.conftest import Run
from tests.small_checkpoints import layer


@pytest.fixture
def two_heads(folder: Path) -> str:
    """A teacher and a student with two heads each, the patch head first and larger."""
    teacher = layer("ibot_head", 1, k=9) | layer("dino_head", 2)
    student = layer("dino_head", 3) | layer("x", 4) | {"mask": torch.ones(2, 3, 4)}
    torch.save({"teacher": teacher, "student": student}, folder / "dinov2.pth")
    return "dinov2.pth"


def table(out: str, first: str) -> list[list[str]]:
    """Cells of the table whose heading begins with a word, and has another one behind it."""
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if re.match(rf"{first}\s+[a-z]+ ", line))
    rows = []
    for line in lines[start + 1 :]:
        if not line:
            break
        rows.append(re.split(r"\s{2,}", line.strip()))
    return rows


def test_heads_keys_and_container_are_printed(run: Run, two_heads: str) -> None:
    code, out, err = run("info", two_heads)
    assert (code, err) == (0, "")
    assert out.startswith("dinov2.pth: zip, ")
    assert ["teacher/ibot_head", "1", "36"] in table(out, "module")
    assert table(out, "head") == [
        ["ibot_head*", "teacher", "9", "4", "float32"],
        ["dino_head*", "teacher", "6", "4", "float32"],
        ["dino_head", "student", "6", "4", "float32"],
        ["x", "student", "6", "4", "float32"],
    ]
    assert "dino_head (student): student/dino_head.last_layer.weight" in out
    assert "* audited unless --head or --branch says otherwise" in out
    assert "matrix" not in out
    assert max(map(len, out.splitlines())) <= 100


def test_json_holds_the_same(run: Run, two_heads: str) -> None:
    content: dict[str, Any] = json.loads(run("info", two_heads, "--json")[1])
    assert content["schema"] == "collapse-audit/info"
    assert content["container"] == "zip"
    assert content["source"] == {"spec": "dinov2.pth", "family": "dinov3"}
    assert [head["name"] for head in content["heads"] if head["default"]] == ["dino_head"]
    assert [head["name"] for head in content["heads"] if head["audited"]] == [
        "ibot_head",
        "dino_head",
    ]
    assert content["top_level"] == [
        {"key": "teacher", "tensors": 2},
        {"key": "student", "tensors": 3},
    ]
    assert {"key": "student/mask", "shape": [2, 3, 4], "dtype": "float32"} in content["matrices"]


def test_all_lists_every_matrix_with_shape_and_type(run: Run, folder: Path) -> None:
    state = layer("head", 1) | {f"layer{i}.weight": torch.ones(i + 1, 2).half() for i in range(40)}
    torch.save(state | {"bias": torch.ones(3), "count": torch.ones(2, 2, dtype=torch.int64)}, "x")
    assert folder.is_dir()
    rows = table(run("info", "--all", "./x")[1], "matrix")
    assert rows[0] == ["head.last_layer.weight", "6 x 4", "float32"]
    assert rows[1:41] == [[f"layer{i}.weight", f"{i + 1} x 2", "float16"] for i in range(40)]
    assert rows[41:] == [["--head KEY takes any of them"]]


def test_without_a_head_matrices_are_listed_unasked(run: Run, folder: Path) -> None:
    torch.save(
        {"blocks.0.weight": torch.ones(3, 4), "norm.weight": torch.ones(4)}, folder / "x.pth"
    )
    code, out, _ = run("info", "x.pth")
    assert code == 0
    assert "no prototypes in this file" in out
    assert table(out, "matrix")[0] == ["blocks.0.weight", "3 x 4", "float32"]


def test_without_a_matrix_that_is_said(run: Run, folder: Path) -> None:
    np.savez(folder / "backbone.npz", labels=np.arange(3))
    code, out, _ = run("info", "backbone.npz")
    assert (code, "no prototypes in this file" in out) == (0, True)
    assert "no matrix in this file" in out


def test_the_tree_of_a_large_flat_file_is_shortened(run: Run, folder: Path) -> None:
    state: dict[str, Any] = {f"layer{i}.weight": torch.ones(2) for i in range(40)}
    torch.save({**state, "epoch": 3}, folder / "flat.pth")
    out = run("info", "flat.pth")[1]
    assert "… and 16 more" in out
    assert "without tensors: epoch" in out


def test_centres_and_notes_are_listed(run: Run, folder: Path) -> None:
    loss = {"center": torch.ones(1, 6), "center2": torch.ones(1, 6)}
    tree = {"teacher": layer("head", 1), "ibot_loss": loss, "x": Path}
    torch.save(tree, folder / "ibot.pth")
    out = run("info", "ibot.pth")[1]
    assert "layout of ibot" in out
    assert "centre: ibot_loss/center, ibot_loss/center2" in out
    tree["x"] = np.full
    torch.save(tree, folder / "ibot.pth")
    assert (
        "note: objects of unknown types beside the weights were not read: numpy.full"
        in (run("info", "ibot.pth")[1])
    )


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_heads_marked_are_exactly_those_that_audit_reports(
    name: str, run: Run, folder: Path
) -> None:
    torch.save(LAYOUTS[name].tree, folder / "x.pth")
    out = run("info", "x.pth")[1]
    marked = [tuple(row[:2]) for row in table(out, "head") if row[0].endswith("*")]
    jsonschema.validate(json.loads(run("info", "x.pth", "--json")[1]), document_schema("info"))
    report = json.loads(run("audit", "x.pth", "--json", "--no-sweep", "--no-nearest")[1])
    audited = [(head["name"] + "*", head["branch"] or "-") for head in report["heads"]]
    assert marked == audited


def test_nothing_is_marked_where_audit_asks_for_a_choice(run: Run, folder: Path) -> None:
    np.savez(folder / "x.npz", features=np.ones((3, 4)), weight=np.eye(4))
    out = run("info", "x.npz")[1]
    assert "*" not in out
    assert "nothing tells which one holds the prototypes: choose with --head" in out
    code, _, err = run("audit", "x.npz")
    assert (code, "Choose a head: features, weight" in err) == (2, True)


def test_a_folder_is_shown_like_a_file(run: Run, folder: Path) -> None:
    from torch.distributed import checkpoint as dcp

    with warnings.catch_warnings(action="ignore"):
        dcp.save({"model": {"teacher": layer("head", 1)}}, checkpoint_id="1249", no_dist=True)
    assert (folder / "1249").is_dir()
    out = run("info", "1249")[1]
    assert out.startswith("1249: dcp, ")
    assert ["head*", "teacher", "6", "4", "float32"] in table(out, "head")


def test_what_cannot_be_read_is_one_line(run: Run, folder: Path) -> None:
    (folder / "page.pth").write_text("<html>")
    code, out, err = run("info", "page.pth")
    assert (code, out) == (2, "")
    assert err.startswith("error: page.pth: the file is a web page")


# --- ids and addresses ---------------------------------------------------------------------------


@pytest.fixture
def url(server: Any, small_dino: bytes, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("COLLAPSE_AUDIT_OFFLINE")
    server.files["dino.pth"] = small_dino
    return str(server.url("dino.pth"))


def test_an_address_and_an_id_show_what_the_file_shows(
    run: Run, folder: Path, url: str, small_dino: bytes
) -> None:
    for name in ("dino.pth", "dino_vits16.pth"):
        (folder / name).write_bytes(small_dino)
    shown = {
        source: run("info", source, *options)
        for source, options in (
            ("dino.pth", ()),
            ("dino_vits16", ("--checkpoint-dir", ".")),
            (url, ("--insecure-http",)),
        )
    }
    for source, (code, out, err) in shown.items():
        assert (code, err) == (0, "")
        assert out.replace(f"{source}: ", "dino.pth: ", 1) == shown["dino.pth"][1]


def test_the_demo_is_shown_too(run: Run) -> None:
    out = run("info", "demo")[1]
    assert out.startswith("demo: safetensors, ")
    assert ["head*", "teacher", "512", "64", "float16"] in table(out, "head")


def test_mlcd_takes_ids_and_addresses(run: Run, folder: Path, url: str, small_dino: bytes) -> None:
    rng = np.random.default_rng(0)
    np.savez(folder / "logits.npz", logits=rng.standard_normal((50, 256)).astype(np.float32))
    (folder / "dino_vits16.pth").write_bytes(small_dino)
    (folder / "dino.pth").write_bytes(small_dino)
    options = ["--data", "logits.npz", "--centre", "none", "--temperature", "0.1", "--json"]
    code, local, err = run("mlcd", "dino.pth", *options)
    assert code == 0, err
    expected = json.loads(local)["heads"]
    for source, more in ((url, ("--insecure-http",)), ("dino_vits16", ("--checkpoint-dir", "."))):
        code, out, err = run("mlcd", source, *options, *more)
        assert code == 0, err
        (found,) = json.loads(out)["heads"]
        found["published"], found["notes"] = None, []  # K is not that of the row
        assert [found] == expected
        assert found["mlcd"]["n"] == 50


@pytest.mark.parametrize("command", ["info", "audit", "mlcd"])
def test_an_address_is_refused_offline_and_without_encryption(
    run: Run, url: str, server: Any, command: str
) -> None:
    data = ("--data", "digits") if command == "mlcd" else ()
    code, _, err = run(command, url, *data)
    assert (code, "--insecure-http" in err) == (2, True)
    code, _, err = run(command, url, *data, "--insecure-http", "--offline")
    assert (code, "offline mode is on" in err) == (2, True)
    assert server.requests == []

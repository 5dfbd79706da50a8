"""`mlcd`: the features beside the classes, and alone where a method has no prototypes."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from torch import nn

from collapse_audit.checkpoints.families import WITHOUT_PROTOTYPES
from collapse_audit.cli import main
from collapse_audit.errors import NoPrototypesError, ParameterError
from collapse_audit.network import load_backbone, measure_features
from collapse_audit.network.datasets import Samples
from collapse_audit.report.schema import report_schema
from collapse_audit.sources import load_prototypes
from tests.planted import chain, noise, under
from tests.test_features import rankme_by_svd

Run = Callable[..., tuple[int, str, str]]
FORMS = ("table", "json", "csv", "markdown", "html")
IMAGES = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch) -> Run:
    """The command line in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "72")

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    """A vision transformer of one block for images of 16 x 16."""
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    return VisionTransformer(
        img_size=16, patch_size=8, embed_dim=64, depth=1, num_heads=1, num_classes=0
    ).eval()


def simdino(vit: nn.Module) -> Any:
    """SimDINO's main_dino.py:338: DINO's networks without the last layer, compiled."""
    head = under("head.", chain("mlp", widths=(64, 128, 128, 32)))
    other = {key: value + 1 for key, value in vit.state_dict().items()}
    return {
        "student": under("module._orig_mod.", under("backbone.", other), head),
        "teacher": under("_orig_mod.", under("backbone.", vit.state_dict()), head),
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", out_dim=65536, use_simdino=True),
        "dino_loss": {},
    }


def simdinov2(vit: nn.Module) -> Any:
    """SimDINO's simdinov2/train/train.py:173, with remove_last_layer."""
    heads = under("dino_head.", chain("mlp", widths=(64, 128, 128, 32)))
    return {"teacher": under("backbone.", vit.state_dict()) | heads}


def lejepa(vit: nn.Module) -> Any:
    """stable-pretraining's methods/lejepa.py as Lightning saves it, with an online probe."""
    projector = {"projector.0.weight": noise(96, 64), "projector.0.bias": noise(96)}
    projector |= chain("projector.1", (0, 3, 6), (96, 128, 128, 32))
    sigreg = {f"sigreg.ep.{name}": noise(17) for name in ("t", "phi", "weights")}
    return {
        "pytorch-lightning_version": "2.5.0",
        "state_dict": under("model.", under("backbone.", vit.state_dict()), projector, sigreg)
        | {"callbacks_modules.linear_probe.weight": noise(100, 64)}
        | {"callbacks_modules.linear_probe.bias": noise(100)},
    }


METHODS: dict[str, tuple[str, Callable[[nn.Module], Any]]] = {
    "simdino": ("simdino", simdino),
    "simdinov2": ("simdino", simdinov2),
    "lejepa": ("lejepa", lejepa),
}


def expected_of(vit: nn.Module, images: np.ndarray = IMAGES) -> float:
    """RankMe of the timm model's own features of images that are left as they are."""
    mean, std = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
    pixels = ((images / 255 - mean) / std).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        return rankme_by_svd(vit(torch.from_numpy(pixels).float()).numpy())


@pytest.mark.parametrize("method", METHODS)
def test_of_a_method_without_prototypes_the_features_are_measured(
    method: str, vit: nn.Module, run: Run, tmp_path: Path
) -> None:
    family, make = METHODS[method]
    torch.save(make(vit), tmp_path / "x.pth")
    np.savez(tmp_path / "images.npz", images=IMAGES)
    arguments = ("mlcd", "x.pth", "--data", "images.npz", "--resize", "none")
    code, out, err = run(*arguments, "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    jsonschema.validate(report, report_schema())
    assert report["source"]["family"] == family
    name = WITHOUT_PROTOTYPES[family]
    assert report["note"].startswith(f"{name} trains without prototypes: ")
    found = report["features"]["backbone"]
    assert (found["n"], found["d"], found["unit_norm"]) == (30, 64, False)
    assert found["rankme_uncentred_1e-7"] == pytest.approx(expected_of(vit), rel=1e-4)
    # and so of features in a file, and of those that are kept
    kept = tmp_path / "kept.safetensors"
    for _ in range(2):
        code, out, err = run(*arguments, "--features", kept, "--json")
        again = json.loads(out)["features"]["backbone"]
        assert again == pytest.approx(found, rel=1e-5), err
    code, out, err = run("mlcd", "x.pth", "--data", kept, "--json")
    assert json.loads(out)["features"]["backbone"] == again, err


@pytest.mark.parametrize("form", FORMS)
def test_every_format_has_the_sentence_and_the_numbers(
    form: str, vit: nn.Module, run: Run, tmp_path: Path
) -> None:
    torch.save(simdinov2(vit), tmp_path / "x.pth")
    np.savez(tmp_path / "f.npz", features=np.random.default_rng(0).standard_normal((40, 6)))
    code, out, _ = run("mlcd", "x.pth", "--data", "f.npz", "--format", form)
    assert code == 0
    assert "SimDINO trains without prototypes" in out
    expected = rankme_by_svd(np.load(tmp_path / "f.npz")["features"])
    if form == "csv":
        (row,) = csv.DictReader(io.StringIO(out))
        assert float(row["backbone_rankme_uncentred_1e-7"]) == pytest.approx(expected)
        assert (row["family"], row["n"], row["bottleneck_d"]) == ("simdino", "40", "")
    elif form != "json":
        assert "RankMe, uncentred, p + 1e-7, N = 40" in out
        assert f"{expected:.4f}" in out
    if form == "table":
        assert max(map(len, out.splitlines())) <= 72


def test_an_audit_says_so_in_one_line_and_what_measures_the_features(
    vit: nn.Module, run: Run, tmp_path: Path
) -> None:
    torch.save(simdino(vit), tmp_path / "x.pth")
    for arguments in (("x.pth",), ("mlcd", "x.pth", "--data", "logits.npz")):
        np.savez(tmp_path / "logits.npz", logits=np.ones((3, 4)))
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err.splitlines() == [
            "error: x.pth: SimDINO trains without prototypes. `collapse-audit mlcd SOURCE --data "
            "DATA` measures the features."
        ]
    code, out, _ = run("info", "x.pth", "--json")
    assert json.loads(out)["source"]["family"] == "simdino"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--temperature", "1"), "--temperature: x.pth has no prototypes"),
        (("--centre", "none"), "--centre: x.pth has no prototypes"),
        (("--groups", "g.csv"), "--groups: x.pth has no prototypes"),
        (("--backbone-arg", "num_heads=1"), "there is no backbone to build"),
        (("--head", "other"), "no head and no tensor is called 'other'"),
    ],
)
def test_what_only_prototypes_need_is_refused(
    option: tuple[str, str], message: str, vit: nn.Module, run: Run, tmp_path: Path
) -> None:
    torch.save(simdinov2(vit), tmp_path / "x.pth")
    np.savez(tmp_path / "f.npz", features=np.ones((3, 4)))
    code, out, err = run("mlcd", "x.pth", "--data", "f.npz", *option)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "g.csv").exists()


def test_of_a_backbone_alone_the_features_are_measured_too(
    vit: nn.Module, run: Run, tmp_path: Path
) -> None:
    torch.save(vit.state_dict() | {"head.weight": noise(10, 64)}, tmp_path / "timm.pth")
    code, _, err = run("timm.pth")
    assert code == 2
    assert "full training checkpoint. `collapse-audit mlcd SOURCE --data DATA` measures" in err
    spread = measure_features(
        Samples(images=IMAGES[:, :, :, 0]),
        load_backbone(tmp_path / "timm.pth"),
        limit=20,
        seed=3,
    )
    assert (spread.n, spread.d) == (20, 64)
    np.savez(tmp_path / "images.npz", images=IMAGES)
    code, out, _ = run("mlcd", "timm.pth", "--data", "images.npz", "--resize", "none", "--json")
    report = json.loads(out)
    assert report["note"].startswith("This file holds no prototypes: ")
    assert report["features"]["backbone"]["rankme_uncentred_1e-7"] == pytest.approx(
        expected_of(vit), rel=1e-4
    )


def test_a_branch_can_be_chosen(vit: nn.Module, tmp_path: Path) -> None:
    torch.save(simdino(vit), tmp_path / "x.pth")
    teacher, student = (load_backbone(tmp_path / "x.pth", branch=b) for b in ("teacher", "student"))
    for model, shift in ((teacher, 0), (student, 1)):
        assert model.backbone is not None
        weight = model.backbone.state_dict()["norm.weight"]
        torch.testing.assert_close(weight, vit.state_dict()["norm.weight"] + shift)


def test_swin_is_found_whole(tmp_path: Path) -> None:
    from timm.models.swin_transformer import SwinTransformer

    sizes = {"img_size": 224, "embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2)}
    swin = SwinTransformer(window_size=7, num_classes=0, **sizes)
    # the original merges patches at the end of a stage
    state = {
        key.replace("layers.1.downsample", "layers.0.downsample"): value
        for key, value in swin.state_dict().items()
    }
    torch.save({"model": state}, tmp_path / "x.pth")
    assert load_backbone(tmp_path / "x.pth").backbone is not None


def test_where_there_is_no_backbone_the_error_is_that_of_the_audit(tmp_path: Path) -> None:
    torch.save({"net.weight": torch.ones(5, 5), "net.bias": torch.ones(5)}, tmp_path / "x.pth")
    with pytest.raises(NoPrototypesError):
        load_prototypes(tmp_path / "x.pth")
    with pytest.raises(NoPrototypesError, match=r"its keys are net\.weight"):
        load_backbone(tmp_path / "x.pth")
    with pytest.raises(ParameterError, match="logits are those of prototypes"):
        measure_features(Samples(logits=np.ones((3, 2))))
    with pytest.raises(ParameterError, match="images need a backbone"):
        measure_features(Samples(images=IMAGES))


def test_beside_the_classes_stand_backbone_and_bottleneck(run: Run) -> None:
    code, out, err = run("mlcd", "demo", "--data", "digits", "--limit", "100", "--json")
    assert code == 0, err
    report = json.loads(out)
    jsonschema.validate(report, report_schema())
    features = report["heads"][0]["mlcd"]["features"]
    sizes = {place: (f["n"], f["d"], f["unit_norm"]) for place, f in features.items()}
    assert sizes == {"backbone": (100, 256, False), "bottleneck": (100, 64, True)}
    code, table, _ = run("mlcd", "demo", "--data", "digits", "--limit", "100")
    assert max(map(len, table.splitlines())) <= 72
    assert "features" in table
    for form in ("table", "markdown", "html"):
        text = run("mlcd", "demo", "--data", "digits", "--limit", "100", "--format", form)[1]
        for place in features.values():
            assert f"{place['uniformity_t2']:.4f}" in text, form
    (row,) = csv.DictReader(
        io.StringIO(run("mlcd", "demo", "--data", "digits", "--limit", "100", "--format", "csv")[1])
    )
    name = "participation_ratio_centred"
    assert float(row[f"mlcd_bottleneck_{name}"]) == features["bottleneck"][name]


def test_features_at_the_bottleneck_and_logits_are_called_what_they_are(
    run: Run, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    given = rng.standard_normal((30, 64))
    np.savez(tmp_path / "f.npz", features=given)
    np.savez(tmp_path / "l.npz", logits=rng.standard_normal((30, 512)))
    found = {}
    for data in ("f.npz", "l.npz"):
        code, out, err = run("mlcd", "demo", "--data", data, "--json", "--dtype", "float64")
        assert code == 0, err
        found[data] = json.loads(out)["heads"][0]["mlcd"]["features"]
    assert found["l.npz"] == {}
    assert list(found["f.npz"]) == ["bottleneck"]
    unit = given / np.linalg.norm(given, axis=1, keepdims=True)
    assert found["f.npz"]["bottleneck"]["rankme_uncentred_1e-7"] == pytest.approx(
        rankme_by_svd(unit), rel=1e-7
    )

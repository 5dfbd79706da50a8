"""End-to-end training with a timm backbone and multi-crop."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from collapse_audit.errors import ParameterError, SourceError
from collapse_audit.network import load_head_model, measure_mlcd, open_samples
from collapse_audit.network.preprocessing import preprocessing_for
from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.data import load_data
from collapse_audit.training.evaluate import probe
from collapse_audit.training.heads import make_network
from collapse_audit.training.loop import make_state
from collapse_audit.training.run import run_training


@pytest.fixture
def config(tmp_path: Path) -> HeadTrainingConfig:
    draw = np.random.default_rng(0)
    path = tmp_path / "images.npz"
    np.savez(
        path,
        images=draw.integers(0, 256, (12, 40, 40, 3), dtype=np.uint8),
        labels=np.arange(12) % 2,
        test_images=draw.integers(0, 256, (6, 40, 40, 3), dtype=np.uint8),
        test_labels=np.arange(6) % 2,
    )
    return HeadTrainingConfig(
        data=str(path), backbone="test_vit", image_size=32, local_views=2, local_size=16,
        k=16, d=8, hidden=16, batch_size=4, iterations=2, warmup=1,
    )  # fmt: skip


def test_crops_are_a_function_of_seed_and_step(config: HeadTrainingConfig) -> None:
    data = load_data(config)
    first = data.batch(config, 1)
    assert [tuple(part.shape) for part in first] == [(2, 4, 3, 32, 32), (2, 4, 3, 16, 16)]
    assert all((part.abs() <= 1).all() for part in first)
    torch.manual_seed(5)  # the global generator is no part of a run
    expected_draw = torch.rand(1)
    torch.manual_seed(5)
    for again, part in zip(data.batch(config, 1), first, strict=True):
        torch.testing.assert_close(again, part, rtol=0, atol=0)
    torch.testing.assert_close(torch.rand(1), expected_draw)  # nor is it disturbed
    assert (data.batch(config, 2)[0] != first[0]).any()
    assert (data.batch(replace(config, seed=1), 1)[0] != first[0]).any()


@pytest.mark.parametrize("regulariser", ["koleo-both", "decoupled"])
def test_a_timm_backbone_trains_end_to_end(
    config: HeadTrainingConfig, tmp_path: Path, regulariser: str
) -> None:
    config = replace(config, regulariser=regulariser)
    before = make_state(config, load_data(config)).student.backbone.state_dict()
    result = run_training(config, tmp_path / "run", quiet=True)
    assert 1 <= result.after["unique"]["greedy"] <= 16
    assert set(result.after["probes"]) == {"knn", "knn_bottleneck", "linear"}
    from safetensors.torch import load_file

    tensors = load_file(result.head)
    moved = [key for key, value in before.items()
             if (tensors[f"student.backbone.{key}"] != value).any()]  # fmt: skip
    assert len(moved) > len(before) / 2


@pytest.mark.parametrize(
    ("backbone", "size", "own"),
    [("test_resnet", 40, None), ("test_vit", 48, 48), ("xcit_nano_12_p16_224", 32, None)],
)  # timm's own sizes: 160, 160, 224
@pytest.mark.filterwarnings("ignore:.*is built for images of 48 x 48")
def test_mlcd_of_the_head_on_its_training_images_is_that_of_its_audit(
    config: HeadTrainingConfig, tmp_path: Path, backbone: str, size: int, own: int | None
) -> None:
    config = replace(config, backbone=backbone, image_size=size)
    result = run_training(config, tmp_path / "run", quiet=True)
    model = load_head_model(result.head)
    assert model.side == own
    prepared = preprocessing_for(model.recipe.preprocessing, resize=size)
    found = measure_mlcd(model, open_samples(config.data), preprocessing=prepared)
    assert found.k.perplexity == pytest.approx(result.after["perplexity"], rel=1e-5)
    information = result.after["mutual_information"]
    assert found.mutual_information == pytest.approx(information, rel=1e-3, abs=1e-5)


def test_evaluation_leaves_the_statistics_of_batch_norm_alone(config: HeadTrainingConfig) -> None:
    config = replace(config, backbone="test_resnet")
    data = load_data(config)
    network = make_network(config, data.width, images=True)
    before = {name: value.clone() for name, value in network.named_buffers()}
    probe(network, data)
    assert network.training
    for name, value in network.named_buffers():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_images_that_cannot_be_trained_on_are_refused(
    config: HeadTrainingConfig, tmp_path: Path
) -> None:
    with pytest.raises(ParameterError, match="Name a timm model"):
        load_data(replace(config, backbone="small"))
    with pytest.raises(ParameterError, match=r"no 'test_vitt'\. Did you mean test_vit"):
        make_network(replace(config, backbone="test_vitt"), 3, images=True)
    with pytest.raises(ParameterError, match=r"crops of 40 pixels .* Use image_size=N and local"):
        make_network(replace(config, image_size=40), 3, images=True)
    with pytest.raises(ParameterError, match=r"crops of 24 pixels do not part into the patches"):
        make_network(replace(config, local_size=24), 3, images=True)
    np.savez(tmp_path / "bad.npz", images=np.zeros((12, 8, 8, 4), np.uint8))
    with pytest.raises(SourceError, match=r"images has shape \(12, 8, 8, 4\) uint8"):
        load_data(replace(config, data=str(tmp_path / "bad.npz")))

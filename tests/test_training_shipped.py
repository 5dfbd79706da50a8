"""The heads that ship: what is stored is what is claimed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from collapse_audit.sources import load_prototypes
from collapse_audit.training.checkpointing import load_network
from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.data import load_data
from collapse_audit.training.shipped import RECIPES, shipped_audit


@pytest.fixture(params=list(RECIPES))
def head(request: pytest.FixtureRequest, repository: Path) -> Path:
    return repository / "collapse_audit" / "examples" / f"{request.param}.safetensors"


def test_the_shipped_audit_is_that_of_the_shipped_file(head: Path) -> None:
    stored = json.loads(head.with_suffix(".audit.json").read_text())
    assert json.loads(json.dumps(shipped_audit(head, head.stem))) == stored


def test_the_baseline_collapsed_and_the_regularised_head_did_not(repository: Path) -> None:
    folder = repository / "collapse_audit" / "examples"
    audits = {name: json.loads((folder / f"{name}.audit.json").read_text()) for name in RECIPES}
    assert audits["digits_baseline"]["unique_fraction"] < 0.3
    assert audits["digits_koleo_proto"]["unique_fraction"] == 1.0


def test_files_are_small_and_readable_by_all(head: Path) -> None:
    paths = sorted(head.parent.glob(f"{head.stem}.*"))
    assert len(paths) >= 3  # the head, its audit and its log
    for path in paths:
        assert path.stat().st_size < 1_000_000
        assert path.stat().st_mode & 0o444 == 0o444


def test_the_file_says_how_it_was_made(head: Path) -> None:
    with safe_open(head, framework="pt") as file:
        provenance = file.metadata()
    settings = json.loads(provenance["config"])
    assert HeadTrainingConfig.from_mapping(settings) == RECIPES[head.stem]
    assert provenance["iteration"] == str(RECIPES[head.stem].iterations)
    assert provenance["data_sha256"] == load_data(RECIPES[head.stem]).fingerprint


def test_the_packages_own_reader_finds_the_same_rows(head: Path) -> None:
    prototypes = load_prototypes(head)
    network = load_network(head, RECIPES[head.stem], 64, images=True)
    assert prototypes.branch == "teacher"
    np.testing.assert_array_equal(prototypes.rows, network.prototypes.detach().numpy(), strict=True)


def test_the_stored_features_are_those_of_the_stored_backbone(head: Path) -> None:
    data = load_data(RECIPES[head.stem])
    network = load_network(head, RECIPES[head.stem], 64, images=True)
    with np.load(head.with_suffix(".features.npz")) as arrays:
        with torch.no_grad():
            expected = network.backbone(data.test).numpy()
        # half precision keeps 11 bits
        np.testing.assert_allclose(arrays["features"], expected, rtol=2**-10, atol=1e-4)
        np.testing.assert_array_equal(arrays["labels"], data.test_labels.astype(np.uint8))

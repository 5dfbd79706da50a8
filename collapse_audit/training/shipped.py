"""Build the heads that ship with the package: ``python -m collapse_audit.training.shipped FOLDER``.

Two heads trained on digits with one seed and one recipe, without and with KoLeo-proto. Beside each
stand its log, its audit, and its features of the held-out digits, on which ``collapse-audit mlcd``
runs without a network.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from collapse_audit.files import replacing
from collapse_audit.training.checkpointing import load_network, save_head, write_text
from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.data import Data, load_data
from collapse_audit.training.evaluate import audit_rows
from collapse_audit.training.run import provenance, run_training

RECIPES = {
    "digits_baseline": HeadTrainingConfig(k=512, regulariser="none"),
    "digits_koleo_proto": HeadTrainingConfig(k=512, regulariser="koleo-proto"),
}


def build(folder: Path) -> None:
    """Train both heads and write them with everything that belongs to them."""
    for name, config in RECIPES.items():
        data = load_data(config)
        with tempfile.TemporaryDirectory() as scratch:
            result = run_training(config, Path(scratch) / name)
            teacher = load_network(result.head, config, data.width, images=data.images)
            shutil.copyfile(result.folder / "log.jsonl", folder / f"{name}.log.jsonl")
        head = folder / f"{name}.safetensors"
        # half the size; the comparison is of the rows as stored, so the audit below is of these
        origin = provenance(config, data.fingerprint, config.iterations)
        save_head(teacher, head, provenance=origin, dtype=torch.float16)
        _write_features(head, folder / f"{name}.features.npz", config, data)
        audit = json.dumps(shipped_audit(head, name), indent=1)
        write_text(folder / f"{name}.audit.json", f"{audit}\n")


def shipped_audit(head: Path, name: str) -> dict[str, Any]:
    """Numbers of the audit of a shipped head as it is stored, without the groups."""
    network = load_network(head, RECIPES[name], 64, images=True)
    audit = audit_rows(network.prototypes)
    return {key: value for key, value in audit.items() if key != "groups"}


def _write_features(head: Path, path: Path, config: HeadTrainingConfig, data: Data) -> None:
    network = load_network(head, config, data.width, images=data.images)
    with torch.no_grad():
        features = network.backbone(data.test).half().numpy()
    labels = np.asarray(data.test_labels, dtype=np.uint8)
    with replacing(path) as file:
        np.savez_compressed(file, features=features, labels=labels)


if __name__ == "__main__":
    build(Path(sys.argv[1]))

"""The names of devices: one meaning in the engine, the networks and the training."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from collapse_audit import HeadTrainingConfig, ParameterError, Prototypes
from collapse_audit.devices import pick_device
from collapse_audit.similarity import choose_panels
from collapse_audit.similarity.products import choice
from collapse_audit.similarity.products.float32 import Float32Panel
from collapse_audit.training.data import load_data
from collapse_audit.training.loop import make_state


@pytest.fixture
def two_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_devices")
def test_a_name_means_a_device_that_is_there():
    names = ["auto", "cpu", "cuda", "cuda:0", "cuda:1"]
    assert [pick_device(name) for name in names] == ["cuda", "cpu", "cuda", "cuda:0", "cuda:1"]
    for name in names:
        assert torch.device(pick_device(name)).type in ("cpu", "cuda")


NO_DEVICES = ["cuda:2", "cuda:99999999999", "cuda:", "cuda:-1", "cuda:01", "cuda:\u0661", "CPU", ""]


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize("name", [*NO_DEVICES, "cuda:1 ", "cuda1", "gpu", "mps", "cpu:0"])
def test_other_names_are_refused_with_what_there_is(name):
    with pytest.raises(ParameterError) as caught:
        pick_device(name)
    assert caught.value.message == (
        f"device {name!r}: unknown, or not on this machine, which has 2 CUDA devices."
    )
    assert caught.value.hint == "Use auto, cpu, cuda or cuda:N."


def test_the_engine_and_the_training_refuse_the_same_names():
    with pytest.raises(ParameterError, match="device 'abacus': unknown"):
        choose_panels(Prototypes.from_weight(np.eye(3)), device="abacus")
    config = HeadTrainingConfig(device="abacus", k=16)
    with pytest.raises(ParameterError, match="device 'abacus': unknown"):
        make_state(config, load_data(config))


@pytest.mark.usefixtures("two_devices")
def test_auto_uses_a_device_only_for_heads_that_gain_from_it(monkeypatch):
    prototypes = Prototypes.from_weight(np.eye(3))
    assert choose_panels(prototypes, device="auto", arithmetic="numpy").first is Float32Panel
    monkeypatch.setattr("collapse_audit.similarity.products.cuda.self_test", lambda _: None)
    monkeypatch.setattr(choice, "_WORTH_IMPORTING_TORCH", 3)
    assert choose_panels(prototypes, device="auto").first.keywords == {"device": "cuda"}
    assert choose_panels(prototypes, device="auto", arithmetic="numpy").first is Float32Panel
    assert choose_panels(prototypes, device="cuda:1").first.keywords == {"device": "cuda:1"}
    assert choose_panels(prototypes, device="cpu", arithmetic="numpy").first is Float32Panel


def test_the_processor_needs_no_torch_for_a_head_of_8192_prototypes():
    code = (
        "import numpy as np, sys\n"
        "from collapse_audit import Prototypes, audit_prototypes\n"
        "rows = np.random.default_rng(0).standard_normal((4096, 256), dtype=np.float32)\n"
        "prototypes = Prototypes.from_weight(np.concatenate([rows, rows]))\n"
        "for device in ('auto', 'cpu'):\n"
        "    assert audit_prototypes(prototypes, device=device).num_unique == 4096\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

"""Every kind of file that people have: the right heads, or an error that says what to do.

The oracle is the planted number of unique prototypes, which differs from head to head.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from collapse_audit.cli import main
from tests.dictionary_layouts import AUTOENCODERS, CODEBOOKS
from tests.field_containers import CONTAINERS
from tests.field_layouts import LAYOUTS
from tests.field_objects import FOREIGN, INSTALLED, write_with_an_object
from tests.field_reports import REPORTS
from tests.field_roles import ORIENTATIONS, ROLES
from tests.field_without_prototypes import (
    HANDMADE,
    TIMM,
    TORCHVISION,
    timm_state,
    torchvision_state,
)
from tests.plain_definition import Definition
from tests.planted import Head, Layout, rows

EVERY = LAYOUTS | REPORTS | ROLES | ORIENTATIONS | CONTAINERS | CODEBOOKS | AUTOENCODERS
Audit = Callable[[Path], tuple[int, Any, str]]


@pytest.fixture
def audit(capsys: pytest.CaptureFixture[str]) -> Audit:
    """What ``collapse-audit audit FILE --json`` gives: exit code, document, stderr."""

    def run(path: Path) -> tuple[int, Any, str]:
        capsys.readouterr()  # what writing the file has said
        code = main(["audit", str(path), "--json"])
        out, err = capsys.readouterr()
        assert "internal error" not in (out + err).lower()
        assert "Traceback" not in out + err
        assert sum(line.startswith("error: ") for line in err.splitlines()) == (code == 2)
        return code, json.loads(out), err

    return run


def check_heads(report: Any, heads: tuple[Head, ...]) -> None:
    found = {head["unique"]["greedy"]: head for head in report["heads"]}
    assert sorted(found) == sorted(head.m for head in heads)
    assert len(report["heads"]) == len(heads)
    for head in heads:
        keys = [key.replace("/", ".") for key in found[head.m]["tensor_keys"]]
        assert any(head.key in key for key in keys), (head.key, keys)
        assert (found[head.m]["k"], found[head.m]["d"]) == head.shape


def check(layout: Layout, code: int, document: Any, err: str) -> None:
    if code == 2 and layout.refusal:
        assert re.search(layout.refusal, err), err
        assert "Backbone-only" not in err
        return
    assert code == 0, err
    check_heads(document, layout.heads)
    assert re.search(layout.note, err + json.dumps(document)), err


@pytest.mark.parametrize("name", EVERY)
def test_a_layout_gives_its_heads_or_says_what_to_do(
    name: str, tmp_path: Path, audit: Audit
) -> None:
    path = EVERY[name].write(tmp_path)
    code, document, err = audit(path)
    check(EVERY[name], code, document, err.replace(str(path), "").replace(path.name, ""))


@pytest.mark.parametrize("is_legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", [*INSTALLED, *FOREIGN])
def test_an_object_beside_the_weights_does_not_cost_the_audit(
    name: str, is_legacy: bool, tmp_path: Path, audit: Audit
) -> None:
    code, report, err = audit(write_with_an_object(name, tmp_path, legacy=is_legacy))
    assert code == 0, err
    check_heads(report, (Head("teacher.head.last_layer", 30),))


def test_a_note_names_the_objects_that_were_not_read(tmp_path: Path, audit: Audit) -> None:
    _, report, err = audit(write_with_an_object("some_lab.train.Config", tmp_path))
    assert "some_lab.train.Config" in err + json.dumps(report)


def refuses(path: Path, audit: Audit) -> None:
    code, document, err = audit(path)
    assert code == 2, document
    assert document["error"]["type"] == "NoPrototypesError", err


@pytest.mark.parametrize("name", HANDMADE)
def test_what_only_looks_like_prototypes_is_not_counted(
    name: str, tmp_path: Path, audit: Audit
) -> None:
    torch.save(HANDMADE[name](), tmp_path / "checkpoint.pth")
    refuses(tmp_path / "checkpoint.pth", audit)


@pytest.mark.parametrize("key", ["", "state_dict", "teacher", "student_ema"])
def test_a_classifier_under_any_name_of_a_network_is_not_counted(
    key: str, tmp_path: Path, audit: Audit
) -> None:
    state = timm_state("vit_tiny_patch16_224")
    torch.save({key: state, "epoch": 3} if key else state, tmp_path / "checkpoint.pth")
    refuses(tmp_path / "checkpoint.pth", audit)


@pytest.mark.parametrize("name", TIMM)
def test_networks_of_timm_are_not_counted(name: str, tmp_path: Path, audit: Audit) -> None:
    torch.save(timm_state(name), tmp_path / "model.pth")
    refuses(tmp_path / "model.pth", audit)


@pytest.mark.parametrize("name", TORCHVISION)
def test_networks_of_torchvision_are_not_counted(name: str, tmp_path: Path, audit: Audit) -> None:
    torch.save(torchvision_state(name), tmp_path / "model.pth")
    refuses(tmp_path / "model.pth", audit)


@pytest.mark.parametrize("m", [12, 30, 45])
def test_planted_rows_have_the_unique_prototypes_they_are_said_to_have(m: int) -> None:
    for epsilon in (0.005, 0.025, 0.2):
        assert len(Definition(rows(m).numpy(), epsilon).greedy()[0]) == m

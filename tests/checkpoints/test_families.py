"""Which method wrote a file: its recipe follows from it, so a wrong answer is worse than none."""

from __future__ import annotations

import inspect
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from collapse_audit.checkpoints.families import guess_family
from collapse_audit.checkpoints.structure import discover_heads
from collapse_audit.containers.opening import read_path
from collapse_audit.examples import embedded_head
from collapse_audit.manifest import load_manifest
from tests.checkpoint_layouts import LAYOUTS
from tests.field_layouts import LAYOUTS as FIELD
from tests.field_reports import REPORTS
from tests.field_roles import ORIENTATIONS, ROLES
from tests.planted import Layout, Layouts, chain, normed, vit

MORE = Layouts()


@MORE.tree("SimGCD: train.py, util/general_utils.py")
def simgcd() -> Any:
    return {"model": vit("0.") | chain("1.mlp") | normed("1.last_layer", 30), "epoch": 9}


EVERY: dict[str, Layout] = FIELD | REPORTS | ROLES | ORIENTATIONS | MORE
# What each layout of the field is, where anything can be said. None: like a method whose recipe is
# known, but of another one.
FAMILIES = {
    "lightly_smog": "smog",
    "lightly_msn": None,
    "lightly_capi": "capi",
    "lightly_swav_of_several_sizes": "lightly_swav",
    "lightly_train_dinov2": "dinov2",
    "solo_learn_swav": "solo_swav",
    "solo_learn_dino": "solo_dino",
    "novae": None,
    "dreamer_pro": None,
    "proto_rl": None,
    "protoseg": None,
    "timetuning": None,
    "svt": "dino",
    "sonata_with_one_teacher_head": "sonata",
    "concerto_with_as_many_prototypes_as_dimensions": "sonata",
    "stable_pretraining_ibot": None,
    "vissl_msn": None,
    "vissl_swav_of_two_sizes": None,
    "vissl_ibot": None,
    "esvit": "esvit",
    "franca": "franca",
    "mugs": "mugs",
    "earth_observation_and_pathology": "dino",
    "sonata": "sonata",
    "deepcluster_v2_of_solo_learn": "solo_deepclusterv2",
    "swav_of_mmselfsup": "mmselfsup_swav",
    "sequential_head": "spt_dino",
    "raw_prototypes_beside_two_networks": "3dspeaker_sdpn",
    "heads_of_three_sizes": "uno",
    "many_heads": "temi",
    "dino_of_mmpretrain": "mmpretrain_dino",
    "swav_of_old_lightly": "lightly_swav",
    "swav_of_passl": "swav",
    "s_model and t_model, one dictionary": "wespeaker_dino",
    "model_ema_equal_to_the_teacher": "dinov3",
    "kernel_of_flax": None,
    "modules_to_save": None,
    "simgcd": "simgcd",
}


# every name that guess_family can return
GUESSED = re.findall(r'^        \("(\w+)",', inspect.getsource(guess_family), re.MULTILINE)


def family(path: Path) -> str | None:
    checkpoint = read_path(path, path.name)
    return guess_family(checkpoint, [head.name for head in discover_heads(checkpoint)])


@pytest.mark.parametrize("name", FAMILIES)
def test_files_of_the_field_are_of_their_family_or_of_none(name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        path = EVERY[name].write(tmp_path)
    assert family(path) == FAMILIES[name]


def test_every_family_that_can_be_guessed_is_guessed_of_some_layout() -> None:
    tested = {layout.family for layout in LAYOUTS.values()} | set(FAMILIES.values())
    tested.add(family(embedded_head()))
    assert tested - {None} == set(GUESSED)


def test_every_family_that_can_be_guessed_is_in_the_manifest() -> None:
    assert set(GUESSED) <= set(load_manifest().families)
    assert len(GUESSED) == len(set(GUESSED))


def test_a_file_without_heads_is_of_no_family() -> None:
    checkpoint = read_path(embedded_head(), "demo")
    assert guess_family(checkpoint, []) is None

"""How each method runs its head: the manifest against the official code, and mlcd against loops."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from collapse_audit.checkpoints.locations import HeadLocation
from collapse_audit.containers.tensors import Checkpoint, StoredTensor
from collapse_audit.errors import CollapseAuditWarning, ParameterError
from collapse_audit.manifest import load_manifest
from collapse_audit.manifest.recipes import Recipe
from collapse_audit.network import load_head_model, measure_mlcd
from collapse_audit.network.datasets import Samples
from collapse_audit.network.head_model import head_model_of
from collapse_audit.prototypes import Prototypes
from tests.method_files import (
    METHODS,
    WIDTH,
    D,
    File,
    K,
    class_distribution,
    gelu,
    make_file,
    relu,
)

SWAV_FEATURES = "31-lightly-swav-mlcd/features.npz"
FIELD = Path(__file__).resolve().parents[2] / "shared" / "field"
BICUBIC, BILINEAR, STD228 = "in1k_bicubic", "in1k_bilinear", "in1k_bilinear_std228"
# teacher and student temperature, centred, norms of prototypes, unit features, activation, profile
OFFICIAL = {
    # facebookresearch/dino main_dino.py:71,365,389, vision_transformer.py:267-289, eval_knn.py:33
    "dino": (0.04, 0.1, True, True, True, "gelu", BICUBIC),
    # bytedance/ibot README.md:66, main_ibot.py:481,533, models/head.py:97,115, eval_knn.py:67
    "ibot": (0.07, 0.1, True, True, True, "gelu", BICUBIC),
    # facebookresearch/swav main_swav.py:59,277-281,307,312, resnet50.py:208,302, eval_linear.py:103
    "swav": (0.1, 0.1, False, False, True, "relu", STD228),
    # facebookresearch/swav main_deepclusterv2.py:60,273,387
    "deepclusterv2": (0.1, 0.1, False, False, True, "relu", STD228),
    # its code was never public: as SwAV
    "selav2": (0.1, 0.1, False, False, True, "relu", STD228),
    # microsoft/esvit README.md:344, main_esvit.py:605,629, models/vision_transformer.py:394-416
    "esvit": (0.07, 0.1, True, True, True, "gelu", BICUBIC),
    # facebookresearch/msn msn_vits16.yaml: temperature 0.1, sharpen 0.25; losses.py:33-42
    "msn": (0.025, 0.1, False, False, True, "gelu", BILINEAR),
    "pmsn": (0.025, 0.1, False, False, True, "gelu", BILINEAR),
    # facebookresearch/dinov2 ssl_default_config.yaml:90, loss/dino_clstoken_loss.py:16,
    # train/vitl14.yaml:10 (Sinkhorn), layers/dino_head.py:27,39,51, data/transforms.py:79
    "dinov2": (0.07, 0.1, False, True, True, "gelu", BICUBIC),
    "webssl": (0.07, 0.1, False, True, True, "gelu", BICUBIC),
    # facebookresearch/dinov3 ssl_default_config.yaml:117, layers/dino_head.py:32 (no weight norm)
    "dinov3": (0.07, 0.1, False, True, True, "gelu", BICUBIC),
    # valeoai/Franca ssl_default_config.yaml:90, layers/mrl_dino_head.py:97-112 (no unit norm)
    "franca": (0.07, 0.1, False, True, False, "gelu", BICUBIC),
    # facebookresearch/capi default_pretrain_config.yaml:18-21, model.py:486,550
    "capi": (0.06, 0.12, False, True, True, None, BICUBIC),
    # sthalles/carp carp_head.py:38-41, random_partition.py:65 (a softmax without temperature)
    "carp": (1.0, 1.0, False, True, False, "gelu", BICUBIC),
    # sail-sg/mugs README.md:122, src/loss.py:135,163, src/model.py:225,242,266
    "mugs": (0.07, 0.1, True, True, True, "gelu", BICUBIC),
    # facebookresearch/vissl swav_8node_resnet.yaml:69-71, swav_prototypes_head.py:41,120
    "vissl_swav": (0.1, 0.1, False, False, True, "relu", BILINEAR),
    # facebookresearch/vissl dino_16gpus_deits16.yaml:84-86, defaults.yaml:1104-1112
    "vissl_dino": (0.07, 0.1, True, True, True, "gelu", BICUBIC),
    # lightly-ai/lightly benchmarks/imagenet/resnet50/dino.py:83, loss/dino_loss.py:64,144
    "lightly_dino": (0.04, 0.1, True, True, True, "gelu", BILINEAR),
    # lightly-ai/lightly benchmarks/imagenet/vitb16/ibot.py:161-162
    "lightly_ibot": (0.07, 0.1, True, True, True, "gelu", BILINEAR),
    # lightly-ai/lightly loss/swav_loss.py:82, modules/heads.py:542,615
    "lightly_swav": (0.1, 0.1, False, False, True, "relu", BILINEAR),
    # Pointcept sonata_v1m1_base.py:38,43,66,268, pretrain-sonata-v1m1-0-base.py:68,70
    "sonata": (0.07, 0.1, False, True, True, "gelu", None),
    # wenet-e2e/wespeaker dino/conf/resnet34.yaml:65,67, ssl/models/dino_wrapper.py:100-127,174
    "wespeaker_dino": (0.07, 0.1, True, True, True, "gelu", None),
    # modelscope/3D-Speaker sdpn_loss.py:13,26-31: 0.1, sharpened by 0.25
    "3dspeaker_sdpn": (0.025, 0.1, False, False, True, "gelu", None),
    # CVMI-Lab/SimGCD train.py:200, model.py:26,39,198,217
    "simgcd": (0.04, 0.1, False, True, True, "gelu", BICUBIC),
    # HHU-MMBS/TEMI main_args.py:39, losses/mi.py:23,139, model_builders/multi_head.py:32,47,60
    "temi": (0.1, 0.1, False, True, True, "gelu", None),
    # DonkeyShot21/UNO main_discover.py:39,146, utils/nets.py:30,70
    "uno": (0.1, 0.1, False, False, True, "relu", None),
    # open-mmlab/mmselfsup _base_/models/swav.py:27, swav_loss.py:75-79, swav_neck.py:54
    "mmselfsup_swav": (0.1, 0.1, False, False, True, "relu", BILINEAR),
    # open-mmlab/mmpretrain projects/dino/config:19,101, models/head:44, models/algorithm:53-59
    "mmpretrain_dino": (0.04, 0.1, True, True, True, "gelu", None),
    # rbalestr-lab/stable-pretraining methods/dino.py:50-57,124,126,243
    "spt_dino": (0.07, 0.1, True, True, True, "gelu", None),
    # vturrisi/solo-learn methods/dino.py:68,78,109,212-216, losses/dino.py:86
    "solo_dino": (0.07, 0.1, True, True, True, "gelu", BILINEAR),
    # vturrisi/solo-learn methods/swav.py:68,73,162, scripts/pretrain/imagenet-100/swav.yaml:25
    "solo_swav": (0.1, 0.1, False, True, True, "relu", BILINEAR),
    # vturrisi/solo-learn methods/deepclusterv2.py:59,71,89,187
    "solo_deepclusterv2": (0.1, 0.1, False, False, True, "relu", BILINEAR),
    # lightly-ai/lightly modules/heads.py:375,390-393,458
    "smog": (0.1, 0.1, False, False, True, "relu", None),
    # RobinWu218/SimDINO simdino/eval_knn.py:35-38: no prototypes, and so nothing else
    "simdino": (*[None] * 6, BICUBIC),
    # rbalestr-lab/stable-pretraining benchmarks/imagenet10/lejepa-vit-small.py:137-139
    "lejepa": (*[None] * 6, BILINEAR),
    # this package: the temperatures are those of each run, in its file
    "collapse_audit": (None, None, None, True, True, "gelu", "plain_bilinear"),
    # arXiv 2405.10939: norms are kept, and probabilities are centred, not logits
    "dino-vmf": (None, None, False, True, True, None, None),
    "ibot-vmf": (None, None, False, True, True, None, None),
}
FIELDS = ("teacher_temperature", "student_temperature", "centring", "use_norms",
          "normalize_features", "activation", "preprocessing")  # fmt: skip
# What a row knows better than its family: dino README.md:188,197 and args.txt, mugs README.md:117
ROWS = {
    "dino_vits16": 0.07, "dino_vits8": 0.07, "dino_vitb16": 0.07, "dino_vitb8": 0.07,
    "dino_resnet50": 0.07, "dino_vits16_300ep_boost": 0.07, "mugs_vits16_100ep": 0.04,
    "dino_xcit_small_12_p16": None, "dino_xcit_small_12_p8": None, "dino_xcit_medium_24_p16": None,
    "dino_xcit_medium_24_p8": None, "dino_k4096": None, "ibot_vits16_100ep": None,
}  # fmt: skip


def test_the_table_has_every_family() -> None:
    assert set(load_manifest().families) == set(OFFICIAL)


@pytest.mark.parametrize("family", OFFICIAL)
def test_a_family_is_run_as_its_official_code_runs_it(family: str) -> None:
    recipe = load_manifest().recipe(family)
    stated = {name: value for name, value in zip(FIELDS, OFFICIAL[family], strict=True)
              if value is not None}  # fmt: skip

    assert {name: getattr(recipe, name) for name in stated} == stated
    # mrl_dino_head.py:31; arXiv 2405.10939
    alone = {"franca": {"final_activation"}, "dino-vmf": {"vmf"}, "ibot-vmf": {"vmf"}}
    alone = alone.get(family, set())
    assert {name for name in ("final_activation", "vmf") if getattr(recipe, name)} == alone
    # nothing is set without a source, and nothing has a source that is not set
    assert set(recipe.sources) == set(stated) | alone


def test_each_number_names_a_line_of_a_public_file() -> None:
    manifest = load_manifest()
    line = re.compile(r"[\w.+-]+/[\w.+-]+@[0-9a-f]{7} \S+:\d+")
    other = re.compile(r"collapse_audit/|arXiv \d|args.txt |microsoft/rad-dino |inferred |private ")
    for recipe in [*manifest.recipes.values(), *(entry.recipe for entry in manifest.entries)]:
        for name, source in recipe.sources.items():
            assert line.match(source) or other.match(source) or "README.md:" in source or (
                getattr(recipe, name) is None
            ), (name, source)  # fmt: skip


def test_rows_differ_from_their_family_where_it_is_known_and_nowhere_else() -> None:
    manifest = load_manifest()
    differ = {
        entry.id: entry.recipe.teacher_temperature
        for entry in manifest.entries
        if entry.recipe.teacher_temperature != manifest.recipe(entry.family).teacher_temperature
    }

    assert differ == ROWS
    assert manifest.get("rad_dino").recipe.preprocessing == "rad_dino_518"
    assert manifest.get("webssl_dino7b_full8b_518").recipe.preprocessing == "bicubic_518"


def test_a_branch_has_its_own_temperature() -> None:
    recipe = Recipe(teacher_temperature=0.04, student_temperature=0.1)

    assert recipe.temperature("student") == 0.1
    assert recipe.temperature("teacher") == recipe.temperature(None) == 0.04


# The forward pass of every method, against loops


def model_of(file: File, family: str | None):
    return head_model_of(
        file.checkpoint, file.location, file.prototypes, family=family, images=False
    )


@pytest.mark.parametrize("family", METHODS)
def test_the_mlcd_of_a_file_is_what_its_official_code_defines(family: str) -> None:
    file, method = make_file(family), METHODS[family]
    found = measure_mlcd(model_of(file, family), Samples(features=file.features), dtype="float64")
    mean, information = class_distribution(file.logits, file.centre, method.temperature)

    assert found.temperature == method.temperature
    assert found.centre == ("file" if method.centre not in (None, "estimated") else
                            method.centre or "none")  # fmt: skip
    np.testing.assert_allclose(found.probabilities, mean, rtol=1e-7)
    np.testing.assert_allclose(found.mutual_information, information, rtol=1e-7)


def test_every_family_with_a_temperature_is_among_these_files() -> None:
    known = {name for name, recipe in load_manifest().recipes.items() if recipe.teacher_temperature}

    assert known | {"collapse_audit"} == set(METHODS)


@pytest.mark.parametrize("family", ["dino-vmf", "collapse_audit", "nobody knows", None])
def test_a_file_whose_temperature_nobody_knows_asks_for_it(family: str | None) -> None:
    model = model_of(make_file("dino"), family)

    with pytest.raises(ParameterError, match=r"temperature of .* is not known.* `temperature=T`"):
        measure_mlcd(model, Samples(logits=np.zeros((2, K))))
    found = measure_mlcd(model, Samples(logits=np.zeros((2, K))), temperature=0.3)
    assert found.temperature == 0.3


def test_what_is_taken_from_dino_because_nothing_tells_is_said() -> None:
    file = make_file("dino")

    with pytest.warns(
        CollapseAuditWarning, match="nothing tells use_norms, normalize_features, act"
    ):
        measure_mlcd(model_of(file, None), Samples(features=file.features), temperature=0.1)


# What the file itself says


@pytest.mark.parametrize(
    ("options", "temperatures"),
    [
        ({"teacher_temp": 0.06}, (0.06, 0.1)),
        ({"group_teacher_temp": 0.05, "group_student_temp": 0.2}, (0.05, 0.2)),
        ({"teacher_temp": 0.06, "teacher_patch_temp": 0.09}, (0.06, 0.1)),
        ({"teacher_temp": "0.06"}, (0.04, 0.1)),
        ({"teacher_temp": -1, "student_temp": float("inf")}, (0.04, 0.1)),
        ({"teacher_temp": True}, (0.04, 0.1)),
        ({"lr": 0.1}, (0.04, 0.1)),
        ({"teacher_temp": np.float64(0.06), "objective": "sinkhorn"}, (0.06, 0.1)),
    ],
)
def test_training_options_in_the_file_come_first(options, temperatures) -> None:
    file = make_file("dino")
    file = replace(file, checkpoint=replace(file.checkpoint, options=options))
    recipe = model_of(file, "dino").recipe

    assert (recipe.teacher_temperature, recipe.student_temperature) == temperatures
    assert recipe.centring
    row = load_manifest().get("dino_vits16")
    model = head_model_of(
        file.checkpoint, file.location, file.prototypes, family="dino", entry=row, images=False
    )
    expected = 0.07 if temperatures[0] == 0.04 else temperatures[0]
    assert model.recipe.teacher_temperature == expected


def test_a_patch_head_has_the_temperature_of_patches() -> None:
    file = make_file("ibot")
    file = replace(
        file,
        checkpoint=replace(
            file.checkpoint, options={"teacher_temp": 0.04, "teacher_patch_temp": 0.07}
        ),
        location=replace(file.location, name="head.last_layer2"),
    )

    assert model_of(file, "ibot").recipe.teacher_temperature == 0.07


@pytest.mark.parametrize(
    ("config", "centring"),
    [({"objective": "dino"}, True), ({"objective": "sinkhorn"}, False), ({}, False)],
)
def test_a_head_of_our_own_trainer_is_run_as_it_was_trained(config, centring) -> None:
    config |= {"teacher_temperature": 0.03, "student_temperature": 0.3}
    file = make_file("collapse_audit")
    metadata = {"format": "collapse-audit/head", "config": json.dumps(config)}
    file = replace(file, checkpoint=replace(file.checkpoint, metadata=metadata))
    recipe = model_of(file, "collapse_audit").recipe

    assert (recipe.teacher_temperature, recipe.student_temperature) == (0.03, 0.3)
    assert recipe.centring is centring


@pytest.mark.parametrize(
    "metadata",
    [
        {"format": "collapse-audit/head"},
        {"format": "collapse-audit/head", "config": "not json"},
        {"format": "collapse-audit/head", "config": "[1]"},
        {"format": "pt", "config": '{"teacher_temperature": 0.5, "objective": "dino"}'},
    ],
)
def test_metadata_that_says_nothing_leaves_the_family_alone(metadata: dict[str, str]) -> None:
    file = make_file("dino")
    file = replace(file, checkpoint=replace(file.checkpoint, metadata=metadata))

    assert model_of(file, "dino").recipe == load_manifest().recipe("dino")


def test_the_head_in_the_package_is_measured_at_the_temperature_of_its_training() -> None:
    from collapse_audit.examples import embedded_head

    assert load_head_model(embedded_head(), images=False).temperature == 0.04


# What stands before the prototypes


def test_a_layer_of_no_known_kind_is_refused() -> None:
    from collapse_audit.errors import CheckpointError

    file = make_file("dino")
    gate = next(iter(file.checkpoint.tensors.values()))
    path = ("teacher", "head.mlp.gate.weight")
    tensors = file.checkpoint.tensors | {"/".join(path): replace(gate, path=path)}
    file = replace(file, checkpoint=replace(file.checkpoint, tensors=tensors))

    with pytest.raises(CheckpointError, match="a layer 'gate'"):
        model_of(file, "dino")


@pytest.mark.parametrize("method", ["dino", "swav"])
def test_one_linear_layer_needs_no_number(method: str) -> None:
    """nlayers = 1 in DINO, hidden_mlp = 0 in SwAV."""
    rng = np.random.default_rng(0)
    weight, rows = rng.standard_normal((D, WIDTH)), rng.standard_normal((K, D))
    keys = {"dino": ("head.mlp.weight", "head.last_layer.weight"),
            "swav": ("projection_head.weight", "prototypes.weight")}[method]  # fmt: skip
    values = dict(zip(keys, (weight, rows), strict=True))
    stored = {
        key: StoredTensor((key,), value.shape, "float64", key, lambda value=value: value)
        for key, value in values.items()
    }
    location = HeadLocation("head", keys[1], K, D, "float64")
    model = head_model_of(
        Checkpoint("f", "zip", 1, stored, tuple(keys)),
        location,
        Prototypes.from_weight(rows),
        family=method,
        images=False,
    )
    x = torch.from_numpy(rng.standard_normal((3, WIDTH)))

    torch.testing.assert_close(model.bottleneck_of(x), x @ torch.from_numpy(weight).T)


def test_features_at_the_bottleneck_of_franca_have_its_last_gelu_behind_them() -> None:
    file = make_file("franca")
    model = model_of(file, "franca")
    at_bottleneck = model.bottleneck_of(torch.from_numpy(file.features))

    torch.testing.assert_close(model.bottleneck_of(at_bottleneck), at_bottleneck)
    assert float(at_bottleneck.min()) >= -0.17  # the minimum of GELU


# Files rebuilt from public reports, with the mutual information that each must give


@pytest.fixture(scope="module")
def field() -> Path:
    if not (FIELD / "truth.json").is_file():
        pytest.skip("no field files beside the repository")
    return FIELD


def arrays_of(path: Path, *folders: str) -> dict[str, np.ndarray]:
    state = torch.load(path, weights_only=True)
    for folder in folders:
        state = state[folder]
    return {key: tensor.double().numpy() for key, tensor in state.items()}


def through(x, state, prefix, layers, activation):
    for place, layer in enumerate(layers):
        weight, bias = state[f"{prefix}.{layer}.weight"], state.get(f"{prefix}.{layer}.bias", 0.0)
        x = x @ weight.T + bias
        if f"{prefix}.{layer + 1}.running_mean" in state:
            norm = f"{prefix}.{layer + 1}"
            x = (x - state[f"{norm}.running_mean"]) / np.sqrt(state[f"{norm}.running_var"] + 1e-5)
            x = x * state[f"{norm}.weight"] + state[f"{norm}.bias"]
        if place < len(layers) - 1:
            x = np.vectorize(activation)(x)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_the_field_cases_follow_from_their_recipes(field: Path) -> None:
    truth = json.loads((field / "truth.json").read_text())
    wanted = {case["file"]: case["mi"] for case in truth if case.get("do") == "mlcd"}
    x = np.load(field / "mlcd" / "features16.npz")["features"].astype(float)

    file = "08-wespeaker-dino/model_150.pt"
    state = arrays_of(field / file)
    rows = state["t_model.projection_head.last_layer.weight_v"]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows *= state["t_model.projection_head.last_layer.weight_g"]
    logits = through(x, state, "t_model.projection_head.mlp", (0, 2), gelu) @ rows.T
    centre = state["dino_loss_calculator.center"].ravel()
    recipe = load_manifest().recipe("wespeaker_dino")
    _, found = class_distribution(logits, centre, recipe.teacher_temperature or 0)
    assert found == pytest.approx(wanted.pop(file), abs=0.001)

    recipe = load_manifest().recipe("dinov3")
    for file, folders, side in (
        ("12-dinov3-dcp-to-torch/teacher_checkpoint.pth", ("teacher",), ""),
        ("12-dinov3-dcp-to-torch/dinov3_1249.pth", ("model",), "teacher."),
    ):
        state = arrays_of(field / file, *folders)
        features = through(x, state, f"{side}dino_head.mlp", (0, 2, 4), gelu)
        logits = features @ state[f"{side}dino_head.last_layer.weight"].T
        _, found = class_distribution(logits, None, recipe.teacher_temperature or 0)
        assert found == pytest.approx(wanted.pop(file), abs=0.001)

    file = "31-lightly-swav-mlcd/swav.ckpt"
    state = arrays_of(field / file, "state_dict")
    x = np.load(field / SWAV_FEATURES)["features"].astype(float)
    rows = state["prototypes.heads.0.weight"]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    logits = through(x, state, "projection_head.layers", (0, 3), relu) @ rows.T
    logits += state["prototypes.heads.0.bias"]
    recipe = load_manifest().recipe("lightly_swav")
    _, found = class_distribution(logits, None, recipe.teacher_temperature or 0)
    assert found == pytest.approx(wanted.pop(file), abs=0.001)
    assert not wanted


@pytest.mark.parametrize(
    ("file", "family", "head"),
    [
        (
            "08-wespeaker-dino/model_150.pt",
            "wespeaker_dino",
            "t_model.projection_head.last_layer.weight_v",
        ),
        (
            "12-dinov3-dcp-to-torch/teacher_checkpoint.pth",
            "dinov3",
            "teacher/dino_head.last_layer.weight",
        ),
        (
            "12-dinov3-dcp-to-torch/dinov3_1249.pth",
            "dinov3",
            "model/teacher.dino_head.last_layer.weight",
        ),
        ("31-lightly-swav-mlcd/swav.ckpt", "lightly_swav", "state_dict/prototypes.heads.0.weight"),
    ],
)
def test_the_field_cases_are_measured_so(field: Path, file: str, family: str, head: str) -> None:
    tensors: dict[str, StoredTensor] = {}

    def collect(node, path=()) -> None:
        for key, value in node.items():
            inside = (*path, key)
            if isinstance(value, dict):
                collect(value, inside)
            elif isinstance(value, torch.Tensor):
                name = "/".join(inside)
                shape, dtype = tuple(value.shape), str(value.dtype).removeprefix("torch.")
                tensors[name] = StoredTensor(inside, shape, dtype, name, value.numpy)

    collect(torch.load(field / file, weights_only=True))
    scale = head.replace("weight_v", "weight_g") if head.endswith("_v") else None
    bias = tensors.get(head.replace("weight", "bias"))
    prototypes = Prototypes.from_weight(
        tensors[head].read(),
        scale=tensors[scale].read() if scale else None,
        bias=bias.read() if bias else None,
        branch="teacher",
    )
    k, d = tensors[head].shape
    location = HeadLocation("head", head, k, d, "float32", "teacher", scale)
    model = head_model_of(
        Checkpoint(file, "zip", 1, tensors, ()), location, prototypes, family=family, images=False
    )
    data = SWAV_FEATURES if family == "lightly_swav" else "mlcd/features16.npz"
    features = np.load(field / data)["features"]
    found = measure_mlcd(model, Samples(features=features), dtype="float64")
    truth = json.loads((field / "truth.json").read_text())
    (expected,) = (c["mi"] for c in truth if c.get("do") == "mlcd" and c["file"] == file)

    assert found.mutual_information == pytest.approx(expected, abs=0.001)

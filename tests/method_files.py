"""A small checkpoint of every method, with its logits computed by loops that follow its own code.

The keys are those of the official repositories; the arithmetic is plain Python and numpy in float64
and shares nothing with the package. Beside the head that is meant stand others that are not: the
student's, a backbone with numbered layers, a predictor, the next of several heads.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from collapse_audit.checkpoints.locations import HeadLocation
from collapse_audit.containers.tensors import Checkpoint, StoredTensor
from collapse_audit.prototypes import Branch, Prototypes

Array = npt.NDArray[np.float64]
WIDTH, HIDDEN, D, K = 10, 9, 7, 24


@dataclass(frozen=True)
class Method:
    """One head as its official code has it.

    Attributes:
        prototypes: Key of the prototype layer, ``/`` between dictionaries.
        layers: Layers before it, in order: the key of one with weights, or an activation.
        style: ``weight_norm``, ``plain``, ``raw`` (a parameter, not a layer) or ``bias``.
        unit_features: Whether the code scales features to unit norm.
        unit_rows: Whether the code compares with unit rows.
        temperature: Of the network that ``branch`` names.
        centre: Key of the centre; ``"estimated"`` where the code centres and files hold none.
        branch: The network.
        head: Name of the head, which tells whether it is one for patches.
        twins: Pairs of key prefixes: what stands under the first does so under the second as
            well, with other values.
        beside: Shapes of further tensors that are no part of the head.
        metadata: Of the container.
    """

    prototypes: str
    layers: tuple[str, ...]
    temperature: float
    style: str = "weight_norm"
    unit_features: bool = True
    unit_rows: bool = False
    centre: str | None = None
    branch: Branch | None = "teacher"
    head: str = "head"
    twins: tuple[tuple[str, str], ...] = ()
    beside: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


def mlp(prefix: str, activation: str, *, norms: bool = False, layers: int = 3) -> tuple[str, ...]:
    """Linear layers with an activation in between, numbered as in a ``Sequential``."""
    found, index = [], 0
    for layer in range(layers):
        found.append(f"{prefix}.{index}")
        if layer < layers - 1:
            found += [f"{prefix}.{index + 1}:bn"] * norms + [activation]
        index += 2 + norms
    return tuple(found)


SWAV: dict[str, Any] = {"style": "plain", "unit_rows": True, "branch": None, "temperature": 0.1}
OWN = {"teacher_temperature": 0.05, "student_temperature": 0.2, "objective": "sinkhorn"}
DDP = (("teacher/", "student/module."),)
VISSL = "classy_state_dict/base_model/model/heads/0"


def swav(prototypes: str, projection: str, **changes: Any) -> Method:
    """SwAV's head: linear, BatchNorm, ReLU, linear; prototypes that stand beside it."""
    layers = mlp(projection, "relu", norms=True, layers=2)
    return Method(prototypes, layers, **(SWAV | changes))


def dino(owner: str, temperature: float, **changes: Any) -> Method:
    """DINO's head: three linear layers with GELU; prototypes in the same module."""
    return Method(f"{owner}.last_layer", mlp(f"{owner}.mlp", "gelu"), temperature, **changes)


# Temperatures and flags are typed from the official code; tests/test_recipes.py says from where.
METHODS = {
    "dino": dino("teacher/head", 0.04, centre="estimated", twins=DDP),
    "ibot": dino("teacher/head", 0.07, centre="ibot_loss/center", twins=DDP),
    "swav": swav("module.prototypes", "module.projection_head"),
    "deepclusterv2": swav(
        "module.prototypes.prototypes1",
        "module.projection_head",
        twins=(("module.prototypes.prototypes1", "module.prototypes.prototypes0"),),
    ),
    "selav2": swav("module.prototypes.prototypes0", "module.projection_head"),
    "esvit": dino(
        "teacher/head_dense",
        0.07,
        centre="dino_loss/center_grid",
        head="head_dense",
        twins=(("teacher/head_dense.", "teacher/head."), *DDP),
        beside={"dino_loss/center": (1, K)},
    ),
    "msn": Method(
        "prototypes",
        tuple(
            f"target_encoder/module.fc.{layer}" if layer != "gelu" else layer
            for layer in ("fc1", "bn1:bn", "gelu", "fc2", "bn2:bn", "gelu", "fc3")
        ),
        0.025,
        style="raw",
        unit_rows=True,
        branch=None,
        twins=(("target_encoder/", "encoder/"),),
    ),
    "dinov2": dino("teacher/dino_head", 0.07),
    "dinov3": dino(
        "teacher/ibot_head",
        0.07,
        style="plain",
        head="ibot_head",
        twins=(("teacher/ibot_head.", "teacher/dino_head."), *DDP),
    ),
    "webssl": dino("dino_head", 0.07, branch=None),
    # each level has a linear layer, then an MLP, whose last GELU stands before the prototypes
    "franca": Method(
        "teacher/dino_head.last_layers.2",
        (
            "teacher/dino_head.matryoshka_projections.2",
            *mlp("teacher/dino_head.mlps.2", "gelu"),
            "gelu",
        ),
        0.07,
        unit_features=False,
        twins=(
            ("teacher/dino_head.mlps.2", "teacher/dino_head.mlps.1"),
            ("teacher/dino_head.last_layers.2", "teacher/dino_head.last_layers.1"),
        ),
        beside={"teacher/dino_head.matryoshka_projections.1.weight": (HIDDEN - 1, WIDTH)},
    ),
    "capi": Method("head.layer", (), 0.06, style="bias", branch=None),
    "carp": Method(
        "teacher/module.head.last_layer",
        mlp("teacher/module.head.mlp", "gelu", norms=True),
        1.0,
        unit_features=False,
        twins=(("teacher/", "student/"),),
    ),
    "mugs": Method(
        "teacher/group_head.last_layer",
        mlp("teacher/group_head.projector", "gelu"),
        0.07,
        centre="group-sup./center",
        twins=DDP,
    ),
    "vissl_swav": swav(f"{VISSL}.prototypes0", f"{VISSL}.projection_head"),
    "vissl_dino": Method(
        "loss/momentum_teacher.heads.0.prototypes0",
        mlp("loss/momentum_teacher.heads.0.mlp", "gelu"),
        0.07,
        centre="loss/center",
        twins=(("loss/momentum_teacher.heads.0", VISSL),),
    ),
    "lightly_dino": Method(
        "state_dict/projection_head.last_layer",
        mlp("state_dict/projection_head.layers", "gelu"),
        0.04,
        centre="state_dict/criterion.center",
        twins=(("state_dict/projection_head", "state_dict/student_projection_head"),),
    ),
    "lightly_ibot": Method(
        "state_dict/teacher_head.last_layer",
        mlp("state_dict/teacher_head.layers", "gelu"),
        0.07,
        centre="state_dict/cls_criterion.center",
        twins=(("state_dict/teacher_head", "state_dict/student_head"),),
        beside={"state_dict/patch_criterion.center.center": (1, K)},
    ),
    "lightly_swav": swav(
        "state_dict/prototypes.heads.0", "state_dict/projection_head.layers", style="bias"
    ),
    "sonata": Method(
        "state_dict/module.teacher.unmask_head.prototype",
        mlp("state_dict/module.teacher.unmask_head.mlp", "gelu", layers=2),
        0.07,
        twins=(
            ("state_dict/module.teacher.unmask_head", "state_dict/module.teacher.mask_head"),
            ("state_dict/module.teacher", "state_dict/module.student"),
        ),
    ),
    "wespeaker_dino": Method(
        "t_model.projection_head.last_layer",
        mlp("t_model.projection_head.mlp", "gelu", layers=2),
        0.07,
        centre="dino_loss_calculator.center",
        twins=(("t_model", "s_model"),),
    ),
    "3dspeaker_sdpn": Method(
        "prototypes",
        mlp("teacher/module.head.mlp", "gelu", norms=True),
        0.025,
        style="raw",
        unit_rows=True,
        branch=None,
        twins=(("teacher/", "student/"),),
    ),
    # the MLP ends in another width: the prototypes compare the features themselves
    "simgcd": Method(
        "model/1.last_layer",
        (),
        0.04,
        branch=None,
        beside={"model/1.mlp.0.weight": (HIDDEN, WIDTH), "model/1.mlp.2.weight": (D, HIDDEN)},
    ),
    "temi": Method(
        "teacher/head.heads.3.last_layer",
        ("teacher/embed", *mlp("teacher/head.heads.3.mlp", "gelu", layers=2)),
        0.1,
        twins=(("teacher/head.heads.3", "teacher/head.heads.2"), *DDP),
    ),
    "uno": swav(
        "head_unlab.prototypes.1.prototypes",
        "head_unlab.projectors.1.mlp",
        twins=(
            ("head_unlab.projectors.1", "head_unlab.projectors.0"),
            ("head_unlab.", "head_unlab_over."),
        ),
    ),
    "mmselfsup_swav": swav("state_dict/head.loss.prototypes", "state_dict/neck.projection_neck"),
    "mmpretrain_dino": dino(
        "state_dict/teacher.module.1",
        0.04,
        centre="state_dict/head.center",
        twins=(("state_dict/teacher.module.1", "state_dict/neck"),),
    ),
    "spt_dino": Method(
        "state_dict/projector.teacher.6",
        mlp("state_dict/projector.teacher", "gelu"),
        0.07,
        style="plain",
        centre="state_dict/dino_loss.center",
        twins=(("state_dict/projector.teacher", "state_dict/projector.student"),),
    ),
    "solo_dino": dino(
        "state_dict/momentum_head",
        0.07,
        centre="state_dict/dino_loss_func.center",
        twins=(("state_dict/momentum_head", "state_dict/head"),),
    ),
    "solo_swav": swav(
        "state_dict/prototypes", "state_dict/projector", style="weight_norm", unit_rows=False
    ),
    "solo_deepclusterv2": swav(
        "state_dict/prototypes.2",
        "state_dict/projector",
        twins=(("state_dict/prototypes.2", "state_dict/prototypes.1"),),
    ),
    # what the projection gives is normalised too (without weights); a predictor as wide follows
    "smog": Method(
        "smog.group_features",
        (
            *mlp("projection_head.layers", "relu", norms=True, layers=2),
            "projection_head.layers.4:bn only",
        ),
        **(SWAV | {"style": "raw"}),
        beside={
            "prediction_head.layers.0.weight": (HIDDEN, D),
            "prediction_head.layers.3.weight": (D, HIDDEN),
        },
    ),
    "collapse_audit": dino(
        "teacher.head",
        0.05,
        twins=(("teacher.", "student."),),
        metadata={"format": "collapse-audit/head", "config": json.dumps(OWN)},
    ),
}
METHODS["pmsn"] = METHODS["msn"]


@dataclass(frozen=True)
class File:
    """A checkpoint, where its head is, and what the head gives for some features."""

    checkpoint: Checkpoint
    location: HeadLocation
    prototypes: Prototypes
    features: Array
    logits: Array
    centre: Array | None


def make_file(name: str, n: int = 40) -> File:
    """Build the small file of a method.

    Args:
        name: A key of :data:`METHODS`.
        n: Number of samples.

    Returns:
        The file with features, and their logits as the official code computes them.
    """
    method, rng = METHODS[name], np.random.default_rng(sum(map(ord, name)))
    tensors: dict[str, Array] = {
        f"{prefix}backbone.{key}": rng.standard_normal((D, D))
        for prefix in ("", "state_dict/", "teacher/")
        for key in ("layers.0.weight", "layers.2.weight", "blocks.0.attn.proj.weight")
    }
    features = x = rng.standard_normal((n, WIDTH))
    for place, layer in enumerate(method.layers):
        last = not any(map(_is_linear, method.layers[place + 1 :]))
        x = _through(layer, x, tensors, rng, width=D if last else HIDDEN)
    rows, g, bias = (rng.standard_normal((K, s)) for s in (x.shape[1], 1, 1))
    scale = np.abs(g) + 0.5 if method.style == "weight_norm" else None
    tensors |= {
        method.prototypes + suffix: values
        for suffix, values in {
            "weight_norm": {".weight_v": rows, ".weight_g": scale},
            "plain": {".weight": rows},
            "raw": {"": rows},
            "bias": {".weight": rows, ".bias": bias[:, 0]},
        }[method.style].items()
        if values is not None
    }
    if method.unit_features:
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    weight = unit if method.unit_rows else rows if scale is None else unit * scale
    logits = x @ weight.T + (bias[:, 0] if method.style == "bias" else 0)
    centre = logits.mean(axis=0) if method.centre == "estimated" else None
    for first, second in method.twins:  # before the real ones: the order of a file tells nothing
        twins = {
            second + k.removeprefix(first): v for k, v in tensors.items() if k.startswith(first)
        }
        tensors = {
            k: rng.permutation(v.ravel()).reshape(v.shape) for k, v in twins.items()
        } | tensors
    tensors |= {key: rng.standard_normal(shape) for key, shape in method.beside.items()}
    if method.centre not in (None, "estimated"):
        centre = rng.standard_normal(K) / 10
        tensors[str(method.centre)] = centre.reshape(1, 1, K)
    prototypes = Prototypes.from_weight(
        rows,
        scale=scale,
        bias=bias[:, 0] if method.style == "bias" else None,
        branch=method.branch,
        source=name,
    )
    checkpoint, location = _checkpoint(tensors, method), _location(tensors, method, x.shape[1])
    return File(checkpoint, location, prototypes, features, logits, centre)


def _is_linear(layer: str) -> bool:
    return layer not in ("gelu", "relu", "teacher/embed") and ":" not in layer


def _through(
    layer: str, x: Array, tensors: dict[str, Array], rng: np.random.Generator, *, width: int
) -> Array:
    """Features after one layer, whose tensors are drawn and added to those of the file."""
    if layer in ("gelu", "relu"):
        return np.vectorize(gelu if layer == "gelu" else relu)(x)
    key, _, kind = layer.partition(":")
    mean, var = rng.standard_normal(x.shape[1]), rng.uniform(0.5, 2, x.shape[1])
    if _is_linear(layer):
        weight, bias = rng.standard_normal((width, x.shape[1])) / 3, rng.standard_normal(width) / 3
        tensors |= {f"{key}.weight": weight, f"{key}.bias": bias}
        return x @ weight.T + bias
    if not kind:  # TEMI: (x - embed_mean) / embed_std
        tensors |= {f"{key}_mean": mean, f"{key}_std": var}
        return (x - mean) / var
    tensors |= {f"{key}.running_mean": mean, f"{key}.running_var": var}
    x = (x - mean) / np.sqrt(var + 1e-5)
    if kind == "bn only":
        return x
    scale, shift = rng.standard_normal(x.shape[1]), rng.standard_normal(x.shape[1])
    tensors |= {f"{key}.weight": scale, f"{key}.bias": shift}
    return x * scale + shift


def class_distribution(
    logits: Array, centre: Array | None, temperature: float
) -> tuple[list[float], float]:
    """Mean probabilities and mutual information, by their definitions and by loops."""
    samples = []
    for row in logits:
        scores = [
            (value - (0.0 if centre is None else centre[k])) / temperature
            for k, value in enumerate(row)
        ]
        top = max(scores)
        mass = [math.exp(score - top) for score in scores]
        samples.append([m / sum(mass) for m in mass])
    mean = [sum(p[k] for p in samples) / len(samples) for k in range(logits.shape[1])]
    information = 0.0
    for p in samples:
        for k, value in enumerate(p):
            if value > 0:
                information += value * math.log(value / mean[k]) / len(samples)
    return mean, information


def gelu(x: float) -> float:
    """x times the probability that a standard normal is below it."""
    return x * (1 + math.erf(x / math.sqrt(2))) / 2


def relu(x: float) -> float:
    """The positive part."""
    return max(x, 0.0)


def _checkpoint(tensors: Mapping[str, Array], method: Method) -> Checkpoint:
    stored = {
        key: StoredTensor(
            tuple(key.split("/")), value.shape, "float64", key, lambda value=value: value
        )
        for key, value in tensors.items()
    }
    top = tuple(dict.fromkeys(key.split("/")[0] for key in tensors))
    return Checkpoint("file.pth", "zip", 1, stored, top, metadata=method.metadata)


def _location(tensors: Mapping[str, Array], method: Method, d: int) -> HeadLocation:
    parts = ("", ".weight", ".weight_v"), (".weight_g",), (".bias",)
    weight, scale, bias = (
        next((method.prototypes + p for p in part if method.prototypes + p in tensors), None)
        for part in parts
    )
    return HeadLocation(
        name=method.head,
        branch=method.branch,
        weight_key=weight or "",
        scale_key=scale,
        bias_key=bias,
        k=K,
        d=d,
        dtype="float64",
    )

"""The kinds of file that public issues are about, small: a clone alone tests them too."""

from __future__ import annotations

from typing import Any

import torch

from tests.field_layouts import lightning
from tests.planted import (
    D,
    Head,
    Layouts,
    chain,
    dino,
    noise,
    normed,
    plain,
    resnet,
    rows,
    under,
    vit,
)

REPORTS = Layouts()


@REPORTS.tree("Pointcept: sonata_v1m1_base.py; issues 432, 605",
              Head("teacher.mask_head.prototype", 30), Head("teacher.unmask_head.prototype", 31),
              name="model_last.pth")  # fmt: skip
def sonata() -> Any:
    state = {}
    for role, m in (("student", 40), ("teacher", 30)):
        for i, part in enumerate(("mask_head", "unmask_head")):
            module = f"module.{role}.{part}"
            state |= chain(f"{module}.mlp", (0, 2), (48, 32, D))
            state |= normed(f"{module}.prototype", m + i, new=True)
    return {"epoch": 200, "state_dict": state, "best_metric_value": float("-inf")}


@REPORTS.tree("solo-learn: methods/deepclusterv2.py",
              *(Head(f"prototypes.{i}.weight", 30 + i) for i in range(3)))  # fmt: skip
def deepcluster_v2_of_solo_learn() -> Any:
    heads = (plain(f"prototypes.{i}", 30 + i) for i in range(3))
    memory = {"local_memory_embeddings": noise(2, 64, D), "local_memory_index": torch.arange(64)}
    return lightning(
        under("", resnet(), chain("projector", (0, 3)), *heads)
        | {"classifier.weight": noise(10, 16)}
        | memory
    )


@REPORTS.tree("mmselfsup: losses/swav_loss.py, utils/multi_prototypes.py",
              Head("prototypes.prototypes0", 30), Head("prototypes.prototypes1", 31))  # fmt: skip
def swav_of_mmselfsup() -> Any:
    heads = (plain(f"head.loss_module.prototypes.prototypes{i}", 30 + i) for i in range(2))
    state = under("", resnet(), chain("neck.projection_neck", (0, 3)), *heads)
    return {"meta": {"mmengine_version": "0.10.1"}, "state_dict": state, "message_hub": {}}


@REPORTS.tree("stable-pretraining: methods/dino.py, issue 388", Head("projector.teacher.6", 30),
              refusal=r"projector\.teacher\.6", name="last.ckpt")  # fmt: skip
def sequential_head() -> Any:
    state = vit("backbone.student.") | vit("backbone.teacher.") | {"dino_loss.center": noise(1, 60)}
    for role, m in (("student", 40), ("teacher", 30)):
        state |= chain(f"projector.{role}") | plain(f"projector.{role}.6", m)
    return lightning(state)


@REPORTS.tree("3D-Speaker: bin/train_sdpn.py", Head("prototypes", 30))
def raw_prototypes_beside_two_networks() -> Any:
    network = under("module.", {"backbone.conv1.weight": noise(16, 8, 5)}, chain("head.mlp"))
    return {
        "student": network,
        "teacher": {key: tensor.clone() for key, tensor in network.items()},
        "prototypes": rows(30),
        "optimizer": {"state": {0: {"momentum_buffer": noise(60, D)}}},
    }


@REPORTS.tree("dinov2 issues 234, 487, 544", refusal="(?is)(shard|rank|fsdp).*teacher_checkpoint",
              name="model_final.rank_0.pth")  # fmt: skip
def flat_parameters_of_fsdp() -> Any:
    wrapped = "_fsdp_wrapped_module"
    return {"iteration": 9, "model": {
        f"{role}.{part}.{wrapped}._flat_param": noise(500)
        for role in ("student", "teacher")
        for part in ("backbone", f"backbone.{wrapped}.blocks.0", "dino_head")
    } | {"dino_loss.center": noise(1, 60)}}  # fmt: skip


_UNO = {f"{part}.prototypes.{i}.prototypes": m + i
        for part, m in (("head_unlab", 20), ("head_unlab_over", 30)) for i in range(2)}  # fmt: skip


@REPORTS.tree("UNO: utils/nets.py", Head("head_lab.prototypes", 14, 20, 32),
              *(Head(key, m, d=32) for key, m in _UNO.items()))  # fmt: skip
def heads_of_three_sizes() -> Any:
    state = resnet("encoder.") | plain("head_lab.prototypes", 14, k=20, d=32)
    for key, m in _UNO.items():
        projector = key.replace(".prototypes", ".projectors", 1).removesuffix(".prototypes")
        state |= chain(f"{projector}.mlp", (0, 3), (16, 48, 32)) | plain(key, m, d=32)
    return state


@REPORTS.tree("TEMI: model_builders/multi_head.py",
              *(Head(f"teacher.head.heads.{i}.", 20 + i) for i in range(5)))  # fmt: skip
def many_heads() -> Any:
    def heads(m: int) -> dict[str, Any]:
        state: dict[str, Any] = {"embed_mean": noise(16), "head.best_head_idx": torch.tensor(0)}
        for i in range(5):
            state |= chain(f"head.heads.{i}.mlp") | normed(f"head.heads.{i}.last_layer", m + i)
        return state

    return {"student": heads(40), "teacher": heads(20), "epoch": 200}


@REPORTS.tree("mmpretrain: projects/dino", Head("teacher.module.1.last_layer", 30))
def dino_of_mmpretrain() -> Any:
    neck = chain("neck.mlp") | normed("neck.last_layer", 40)
    teacher = chain("teacher.module.1.mlp") | normed("teacher.module.1.last_layer", 30)
    centre = {"teacher.steps": torch.tensor(9), "head.center": noise(1, 60)}
    state = vit() | neck | vit("teacher.module.0.") | teacher | centre
    return {"meta": {"mmengine_version": "0.10.1"}, "state_dict": state}


@REPORTS.tree("lightly PRs 502 to 946", Head("prototypes.layers", 30), name="last.ckpt")
def swav_of_old_lightly() -> Any:
    return lightning(
        resnet() | chain("projection_head.layers", (0, 3)) | plain("prototypes.layers", 30)
    )


@REPORTS.tree("PASSL: models/swav.py, in torch's order", Head("res_model.prototypes", 30))
def swav_of_passl() -> Any:
    layers = chain("projection_head", (0, 3))
    return under("res_model.", resnet(""), layers, plain("prototypes", 30))


@REPORTS.tree("dino issue 263: a run that diverged", refusal="NaN")
def not_a_number() -> Any:
    teacher = dino(30)
    teacher["head.last_layer.weight_v"][7, 3] = float("nan")
    return {"teacher": teacher}


@REPORTS.tree("swav issue 88: rows that became zero", refusal="zero")
def rows_of_zeros() -> Any:
    state = plain("module.prototypes", 30)
    state["module.prototypes.weight"][7] = 0
    return state

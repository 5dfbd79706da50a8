"""What the method repositories call their prototypes, one small file each.

The names were read in the public source that each layout names.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

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

LAYOUTS = Layouts()


def lightning(state: dict[str, Any]) -> dict[str, Any]:
    return {"epoch": 9, "pytorch-lightning_version": "2.1.0", "state_dict": state}


@LAYOUTS.tree("lightly: modules/heads.py, examples/pytorch_lightning/smog.py",
              Head("smog.group_features", 30))  # fmt: skip
def lightly_smog() -> Any:
    return lightning(
        resnet()
        | resnet("backbone_momentum.")
        | chain("projection_head.layers", (0, 3))
        | chain("projection_head_momentum.layers", (0, 3))
        | chain("prediction_head.layers", (0, 3), (D, 32, D))
        | {"smog.group_features": rows(30), "memory_bank.bank": noise(100, D)}
    )


@LAYOUTS.tree("lightly: examples/pytorch_lightning/msn.py, pmsn.py", Head("prototypes", 30))
def lightly_msn() -> Any:
    return lightning(
        vit("backbone.vit.")
        | chain("projection_head.layers", (0, 3, 6))
        | vit("anchor_backbone.vit.")
        | chain("anchor_projection_head.layers", (0, 3, 6))
        | {"prototypes": rows(30)}
    )


@LAYOUTS.tree("lightly: CAPIProjectionHead, examples/pytorch_lightning/capi.py",
              Head("teacher_head.layer", 30))  # fmt: skip
def lightly_capi() -> Any:
    return lightning(
        vit("student_backbone.vit.")
        | vit("teacher_backbone.vit.")
        | normed("student_head.layer", 40)
        | plain("teacher_head.layer", 30, bias=True)
    )


@LAYOUTS.tree("lightly: SwaVPrototypes with a list of sizes", Head("prototypes.heads.0", 30),
              Head("prototypes.heads.1", 31), Head("prototypes.heads.2", 32))  # fmt: skip
def lightly_swav_of_several_sizes() -> Any:
    heads = (plain(f"prototypes.heads.{i}", 30 + i, bias=True) for i in range(3))
    return lightning(resnet() | chain("projection_head.layers", (0, 3)) | under("", *heads))


@LAYOUTS.tree("lightly-train: _methods/dinov2/dinov2.py", Head("teacher_head.dino_head", 30),
              Head("teacher_head.ibot_head", 31))  # fmt: skip
def lightly_train_dinov2() -> Any:
    return lightning({
        key: tensor
        for i, role in enumerate(("teacher", "student"))
        for j, part in enumerate(("dino_head", "ibot_head"))
        for key, tensor in (
            vit(f"{role}_embedding_model.wrapped_model.")
            | chain(f"{role}_head.{part}.mlp")
            | normed(f"{role}_head.{part}.last_layer", 30 + 10 * i + j, new=True)
        ).items()
    })  # fmt: skip


@LAYOUTS.tree("solo-learn: methods/swav.py", Head("prototypes", 30), name="swav-ep=9.ckpt")
def solo_learn_swav() -> Any:
    return lightning(
        resnet()
        | {"classifier.weight": noise(10, 16), "classifier.bias": noise(10)}
        | chain("projector", (0, 3))
        | normed("prototypes", 30)
        | {"queue": noise(2, 50, D)}
    )


@LAYOUTS.tree("solo-learn: methods/dino.py", Head("momentum_head.last_layer", 30))
def solo_learn_dino() -> Any:
    return lightning(
        resnet()
        | resnet("momentum_backbone.")
        | {"classifier.weight": noise(10, 16), "momentum_classifier.weight": noise(10, 16)}
        | chain("head.mlp", (0, 3, 6))
        | normed("head.last_layer", 40)
        | chain("momentum_head.mlp", (0, 3, 6))
        | normed("momentum_head.last_layer", 30)
        | {"dino_loss_func.center": noise(1, 60)}
    )


@LAYOUTS.tree("MICS-Lab/novae: module/swav.py", Head("swav_head._prototypes", 30))
def novae() -> Any:
    embedding = {"embedding": noise(100, 16), "linear": noise(32, 16)}
    return lightning(
        {f"cell_embedder.{layer}.weight": weight for layer, weight in embedding.items()}
        | {"encoder.node_aggregation.nn.weight": noise(1, D)}
        | {"swav_head._prototypes": rows(30), "swav_head.queue": noise(3, 8, 60)}
    )


@LAYOUTS.tree("fdeng18/dreamer-pro: common/nets.py, and its ports to torch",
              Head("_prototypes", 30))  # fmt: skip
def dreamer_pro() -> Any:
    layers = {"obs_proj": 16, "feat_proj": 40, "_ema_obs_proj": 16}
    projections = {f"{name}.weight": noise(D, width) for name, width in layers.items()}
    agent = {"encoder.cnn.0.weight": noise(8, 3, 4, 4), "_prototypes": rows(30)} | projections
    return {"agent_state_dict": agent, "optims_state_dict": {}}


@LAYOUTS.tree("denisyarats/proto: proto.py", Head("protos", 30))
def proto_rl() -> Any:
    return (
        chain("predictor", (0, 2), (D, 32, D))
        | plain("protos", 30)
        | {"queue": noise(100, D), "queue_ptr": torch.zeros(1, dtype=torch.int64)}
    )


@LAYOUTS.tree("tfzhou/ProtoSeg: lib/models/nets/hrnet.py",
              *(Head("prototypes", 12 + i, 30) for i in range(4)))  # fmt: skip
def protoseg() -> Any:
    state = {
        "backbone.conv1.weight": noise(8, 3, 3, 3),
        "cls_head.0.weight": noise(D, D, 3, 3),
        "proj_head.proj.0.weight": noise(D, D, 1, 1),
        "feat_norm.weight": noise(D),
        "prototypes": torch.stack([rows(12 + i, 30) for i in range(4)]),
    }
    return {"config_dict": {"network": "hrnet48"}, "state_dict": under("module.", state)}


@LAYOUTS.tree("SMSD75/Timetuning: time_tuning.py", Head("teacher_prototypes", 30))
def timetuning() -> Any:
    return (
        under("feature_extractor.", vit("model."), chain("mlp_head", (0, 2)))
        | under("teacher.", vit("model."), chain("mlp_head", (0, 2)))
        | {"prototypes": rows(40), "teacher_prototypes": rows(30)}
    )


@LAYOUTS.tree("MkuuWaUjinga/leopart: src/vit.py", Head("teacher.prototypes", 30))
def leopart() -> Any:
    return lightning({
        key: tensor
        for m, role in ((40, "model."), (30, "teacher."))
        for key, tensor in under(
            role, vit(""), chain("projection_head"), plain("prototypes", m)
        ).items()
    })  # fmt: skip


@LAYOUTS.tree("kahnchana/svt: vision_transformer.py, a head for each stream",
              Head("head.last_layer", 30), Head("head.aux_last_layer", 31))  # fmt: skip
def svt() -> Any:
    return {
        role: under(prefix, dino(m), chain("head.aux_mlp"), normed("head.aux_last_layer", m + 1))
        for role, prefix, m in (("student", "module.", 40), ("teacher", "", 30))
    }


def _sonata(role: str, *heads: tuple[str, int], new: bool = True) -> dict[str, Any]:
    state = {f"module.{role}.backbone.enc.enc0.block0.attn.qkv.weight": noise(24, 8)}
    for name, m in heads:
        state |= chain(f"module.{role}.{name}.mlp", (0, 2))
        state |= normed(f"module.{role}.{name}.prototype", m, new=new)
    return state


@LAYOUTS.tree("Pointcept: sonata_v1m2_uni_teacher_head.py, before torch 2.1",
              Head("teacher.mask_head.prototype", 30))  # fmt: skip
def sonata_with_one_teacher_head() -> Any:
    student = _sonata("student", ("mask_head", 40), ("unmask_head", 41), new=False)
    return {"epoch": 9, "state_dict": student | _sonata("teacher", ("mask_head", 30), new=False)}


@LAYOUTS.tree("Pointcept: concerto_v1m1_base.py, utonia_v1m1_base.py",
              Head("teacher.mask_head.prototype", 30), Head("teacher.unmask_head.prototype", 31),
              Head("enc2d_head_teacher.prototype", 12, D))  # fmt: skip
def concerto_with_as_many_prototypes_as_dimensions() -> Any:
    images = {}
    for role, m in (("student", 14), ("teacher", 12)):
        images |= normed(f"module.enc2d_head_{role}.prototype", m, k=D, new=True)
    return {
        "state_dict": _sonata("student", ("mask_head", 40), ("unmask_head", 41))
        | _sonata("teacher", ("mask_head", 30), ("unmask_head", 31))
        | images
        | {"module.patch_proj.weight": noise(D, 32), "module.patch_proj.bias": noise(D)}
    }


@LAYOUTS.tree("stable-pretraining: methods/ibot.py, dinov2.py, dinov3.py",
              Head("cls_head.teacher.6", 30), Head("patch_head.teacher.6", 31),
              refusal=r"(cls|patch)_head\.teacher\.6")  # fmt: skip
def stable_pretraining_ibot() -> Any:
    state = vit("backbone.student.") | vit("backbone.teacher.") | {"mask_token": noise(1, 1, 16)}
    for i, role in enumerate(("teacher", "student")):
        for j, part in enumerate(("cls_head", "patch_head")):
            module = f"{part}.{role}"
            state |= chain(module) | plain(f"{module}.6", 30 + 10 * i + j)
    return lightning(state)


@LAYOUTS.tree("3D-Speaker: models/rdino/RDINO_Head.py", Head("head.last_layer", 30))
def rdino() -> Any:
    return {
        role: under(
            "module.",
            {"backbone.conv1.weight": noise(16, 8, 5)},
            chain("head.mlp", (0, 3), (16, 32, 48)),
            {"head.add_layer.weight": noise(D, 48), "head.add_layer.bias": noise(D)},
            normed("head.last_layer", m),
        )
        for role, m in (("student", 40), ("teacher", 30))
    }


def _vissl(heads: dict[str, Any], loss: dict[str, Any]) -> dict[str, Any]:
    model = {"trunk": vit("_feature_blocks."), "heads": heads}
    return {"classy_state_dict": {"base_model": {"model": model}}, "loss": loss, "iteration": 5}


@LAYOUTS.tree("vissl: models/heads/msn_head.py", Head("0.prototypes", 30))
def vissl_msn() -> Any:
    return _vissl(chain("0.fc", ("fc1", "fc2", "fc3")) | {"0.prototypes": rows(30)}, {})


@LAYOUTS.tree("vissl: models/heads/swav_prototypes_head.py, losses/swav_loss.py; SEER",
              Head("0.prototypes0", 30), Head("0.prototypes1", 31))  # fmt: skip
def vissl_swav_of_two_sizes() -> Any:
    heads = chain("0.projection_head", (0, 3))
    queues = {"local_queue0": noise(2, 90), "local_emb_queue": noise(2, 90, D)}
    return _vissl(heads | normed("0.prototypes0", 30) | normed("0.prototypes1", 31), queues)


@LAYOUTS.tree("vissl: models/heads/ibot_head.py, losses/ibot_loss.py",
              Head("momentum_teacher.heads.0.prototypes0", 30),
              Head("momentum_teacher.heads.0.prototypes1", 31))  # fmt: skip
def vissl_ibot() -> Any:
    def head(prefix: str, m: int) -> dict[str, Any]:
        return under(prefix, normed("0.prototypes0", m), normed("0.prototypes1", m + 1))

    return _vissl(head("", 40), head("momentum_teacher.heads.", 30) | {"center": noise(1, 60)})


@LAYOUTS.tree("swav: MultiPrototypes of src/resnet50.py", Head("prototypes0", 30),
              Head("prototypes1", 31), name="checkpoint.pth.tar")  # fmt: skip
def swav_of_two_sizes() -> Any:
    heads = (plain(f"prototypes.prototypes{i}", 30 + i) for i in range(2))
    state = under("module.", resnet(""), chain("projection_head", (0, 3)), *heads)
    return {"epoch": 9, "state_dict": state}


@LAYOUTS.tree("Unsupervised-Classification (SCAN): models/models.py", Head("cluster_head.0", 30),
              Head("cluster_head.1", 31), refusal=r"cluster_head\.[01]")  # fmt: skip
def scan() -> Any:
    heads = (plain(f"cluster_head.{i}", 30 + i, bias=True) for i in range(2))
    return {"model": under("module.", resnet(), *heads), "head": 0}


@LAYOUTS.tree("self-label (SeLa): models/alexnet.py", Head("top_layer0", 30),
              Head("top_layer1", 31), refusal="top_layer[01]")  # fmt: skip
def sela() -> Any:
    state = {"features.0.weight": noise(8, 3, 5, 5)} | chain("classifier", (1, 4), (16, 32, D))
    heads = (plain(f"top_layer{i}", 30 + i, bias=True) for i in range(2))
    return {"epoch": 9, "state_dict": under("", state, *heads)}


@LAYOUTS.tree("esvit: main_esvit.py; the head replaces the classifier of the backbone",
              Head("head.last_layer", 30), Head("head_dense.last_layer", 31))  # fmt: skip
def esvit() -> Any:
    return {
        role: under(
            prefix,
            {"patch_embed.proj.weight": noise(16, 3, 4, 4)},
            {"layers.0.blocks.0.attn.relative_position_bias_table": noise(169, 3)},
            chain("head.mlp") | normed("head.last_layer", m),
            chain("head_dense.mlp") | normed("head_dense.last_layer", m + 1),
        )
        for role, prefix, m in (("student", "module.", 40), ("teacher", "module.", 30))
    } | {"dino_loss": {"center": noise(1, 60), "center_grid": noise(1, 62)}}


@LAYOUTS.tree("Franca: layers/mrl_dino_head.py",
              *(Head(f"dino_head.last_layers.{i}", 20 + i) for i in range(3)),
              *(Head(f"ibot_head.last_layers.{i}", 24 + i) for i in range(3)))  # fmt: skip
def franca() -> Any:
    state = vit()
    for part, m in (("dino_head", 20), ("ibot_head", 24)):
        state |= chain(f"{part}.matryoshka_projections", (0, 1, 2), (16, D, D, D))
        for i in range(3):
            state |= chain(f"{part}.mlps.{i}") | normed(f"{part}.last_layers.{i}", m + i)
    return {"teacher": state}


@LAYOUTS.tree("mugs: src/model.py, main_mugs.py", Head("group_head.last_layer", 30))
def mugs() -> Any:
    return {
        role: under(
            prefix,
            vit(),
            chain("instance_head.projector", (0, 3)),
            chain("group_head.mlp", (0, 2)) | normed("group_head.last_layer", m),
        )
        for role, prefix, m in (("student", "module.", 40), ("teacher", "", 30))
    } | {"teacher_mem": {"module.queue_q": noise(100, D)}, "group-sup.": {"center": noise(1, 60)}}


@LAYOUTS.tree("SSL4EO-S12, HIPT, DINO-MC: copies of main_dino.py", Head("teacher.head", 30),
              name="B13_vits16_dino_0099_ckpt.pth")  # fmt: skip
def earth_observation_and_pathology() -> Any:
    return {
        "student": under("module.", dino(40)),
        "teacher": dino(30),
        "optimizer": {"state": {0: {"exp_avg": noise(60, D)}}, "param_groups": [{"lr": 1e-4}]},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", bands="B13", dtype="uint8"),
        "dino_loss": {"center": noise(1, 60)},
        "fp16_scaler": {"scale": 65536.0, "_growth_tracker": 3},
    }


@LAYOUTS.tree("generalized-category-discovery, SimGCD: nn.Sequential(backbone, head)",
              Head("1.last_layer", 30))  # fmt: skip
def category_discovery() -> Any:
    return under("module.", vit("0."), chain("1.mlp"), normed("1.last_layer", 30))

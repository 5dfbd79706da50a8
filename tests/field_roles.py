"""Which of several copies is the teacher, and which way a matrix lies: one small file each."""

from __future__ import annotations

from typing import Any

import numpy as np
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

ROLES = Layouts()
ORIENTATIONS = Layouts()


def swav(m: int) -> dict[str, Any]:
    return resnet("") | chain("projection_head", (0, 3)) | plain("prototypes", m)


@ROLES.tree("timm: utils/checkpoint_saver.py", Head("state_dict_ema.", 30), name="last.pth.tar")
def timm_ema() -> Any:
    return {"arch": "vit_small", "version": 2, "state_dict": dino(40), "state_dict_ema": dino(30)}


@ROLES.tree("mmengine: hooks/ema_hook.py; what it saves as state_dict is the average",
            Head("state_dict.head.prototypes", 30), name="epoch_9.pth")  # fmt: skip
def mmengine_ema() -> Any:
    raw = {"steps": torch.tensor(100)} | under("module.", vit(), plain("head.prototypes", 40))
    return {
        "meta": {"epoch": 9, "mmengine_version": "0.10.1"},
        "state_dict": vit() | plain("head.prototypes", 30),
        "ema_state_dict": raw,
    }


@ROLES.tree("pytorch-lightning 2.6: callbacks/weight_averaging.py; state_dict is the average",
            Head("state_dict.prototypes", 30), name="last.ckpt")  # fmt: skip
def lightning_weight_averaging() -> Any:
    return lightning(swav(30)) | {
        "current_model_state": swav(40),
        "averaging_state": {"n_averaged": torch.tensor(100)},
    }


@ROLES.tree("torch: optim/swa_utils.py, its state dict alone", Head("prototypes", 30))
def averaged_model_alone() -> Any:
    return {"n_averaged": torch.tensor(100)} | under("module.", swav(30))


@ROLES.tree("torch: optim/swa_utils.py, beside the model it averages",
            Head("averaged_model.module.prototypes", 30))  # fmt: skip
def averaged_model_beside_its_model() -> Any:
    average = {"n_averaged": torch.tensor(100)} | under("module.", swav(30))
    return {"model": swav(40), "averaged_model": average}


def _pair(student: str, teacher: str) -> None:
    """Two networks that differ in their first name, as keys of one dictionary and as two."""
    name = f"{student} and {teacher}".replace(".", "_")

    def flat() -> Any:
        return under(f"{student}.", dino(40)) | under(f"{teacher}.", dino(30))

    def nested() -> Any:
        return {"epoch": 3, student: dino(40), teacher: dino(30)}

    for build, container in ((flat, "one dictionary"), (nested, "two dictionaries")):
        build.__name__ = f"{name}, {container}"
        head = Head(f"{teacher}.head.last_layer", 30)
        ROLES.tree("the names that training code gives its two networks", head)(build)


for _student, _teacher in (
    ("model", "model_ema"),
    ("model", "ema"),
    ("model", "ema_model"),
    ("student_model", "teacher_model"),
    ("s_model", "t_model"),
    ("encoder_q", "encoder_k"),
    ("base_encoder", "momentum_encoder"),
    ("online_encoder", "target_encoder"),
    ("online_network", "target_network"),
):
    _pair(_student, _teacher)


@ROLES.tree("dinov3: ssl_meta_arch.py; model_ema is teacher under another name",
            Head("teacher.dino_head", 30), Head("teacher.ibot_head", 31))  # fmt: skip
def model_ema_equal_to_the_teacher() -> Any:
    model = {}
    for role, m in (("student", 40), ("teacher", 30), ("model_ema", 30)):
        for i, part in enumerate(("dino_head", "ibot_head")):
            layer = chain(f"{role}.{part}.mlp") | plain(f"{role}.{part}.last_layer", m + i)
            model |= {key: tensor.clone() for key, tensor in layer.items()}
    return {"iteration": 9, "model": model}


@ROLES.tree("dinov3: distillation, where the average of the student is not the teacher",
            Head("teacher.dino_head", 30))  # fmt: skip
def model_ema_beside_another_teacher() -> Any:
    return {"model": {
        key: tensor
        for role, m in (("student", 40), ("model_ema", 35), ("teacher", 30))
        for key, tensor in plain(f"{role}.dino_head.last_layer", m).items()
    }}  # fmt: skip


@ROLES.tree("dino issue 43, dinov2 issue 407: a teacher that is the student", Head("head", 30),
            note="(?i)same (tensor|storage|weights)|one storage|share")  # fmt: skip
def teacher_and_student_in_one_storage() -> Any:
    network = dino(30)
    return {"student": under("module.", network), "teacher": network}


@ROLES.tree("peft: ModulesToSaveWrapper of utils/other.py, the whole model",
            Head("modules_to_save.default", 30))  # fmt: skip
def modules_to_save() -> Any:
    def copy(name: str, m: int) -> dict[str, Any]:
        module = f"base_model.model.head.last_layer.{name}"
        return normed(module, m)

    body = under("base_model.model.", vit(), chain("head.mlp"))
    lora = {"base_model.model.backbone.blocks.0.attn.qkv.lora_A.default.weight": noise(4, 16)}
    return body | lora | copy("original_module", 40) | copy("modules_to_save.default", 30)


@ROLES.tree("peft: utils/save_and_load.py, the adapter alone", Head("head.last_layer", 30))
def adapter() -> Any:
    qkv = "base_model.model.backbone.blocks.0.attn.qkv"
    lora = {f"{qkv}.lora_A.weight": noise(4, 16), f"{qkv}.lora_B.weight": noise(48, 4)}
    return lora | normed("base_model.model.head.last_layer", 30)


@ROLES.tree("peft: LoRA on the prototypes themselves", Head("last_layer.base_layer", 30),
            refusal="(?i)lora|adapter", note="(?i)lora|adapter")  # fmt: skip
def lora_on_the_prototypes() -> Any:
    layer = "base_model.model.head.last_layer"
    return under("base_model.model.", vit(), chain("head.mlp")) | (
        {f"{layer}.base_layer.weight": rows(30)}
        | {f"{layer}.lora_A.default.weight": noise(4, D)}
        | {f"{layer}.lora_B.default.weight": noise(60, 4)}
    )


for _wrapped in (
    "_orig_mod.teacher.head.last_layer",
    "teacher._orig_mod.head.last_layer",
    "teacher.head._orig_mod.last_layer",
    "teacher.head._fsdp_wrapped_module.last_layer",
    "teacher.head.last_layer._fsdp_wrapped_module",
    "teacher.head._checkpoint_wrapped_module.last_layer",
    "module.teacher._orig_mod.module.head.last_layer",
):

    def _wrapper(layer: str = _wrapped) -> Any:
        student = layer.replace("teacher", "student")
        mlp = layer.replace("last_layer", "mlp")
        return chain(mlp) | normed(layer, 30) | normed(student, 40)

    _wrapper.__name__ = _wrapped
    ROLES.tree("torch.compile, FSDP, activation checkpointing", Head(_wrapped, 30))(_wrapper)


TRANSPOSED = r"(?i)transpos|D x K|\(D, K\)"


@ORIENTATIONS.file("flax: nn.Dense; scenic: projects/loca/vit.py", Head("prototypes.kernel", 30),
                   refusal=TRANSPOSED, note=TRANSPOSED)  # fmt: skip
def kernel_of_flax(folder: Any) -> Any:
    head = {f"head/Dense_{i}/kernel": noise(*s) for i, s in enumerate([(16, 32), (32, D)])}
    np.savez(
        folder / "head.npz",
        **{"params/" + name: kernel.numpy() for name, kernel in head.items()},
        **{"params/head/prototypes/kernel": rows(30).numpy().T},
    )
    return folder / "head.npz"


@ORIENTATIONS.tree("PASSL: models/swav.py, converted with torch's names",
                   Head("prototypes", 30), refusal=TRANSPOSED, note=TRANSPOSED)  # fmt: skip
def weight_of_paddle_after_a_projection_head() -> Any:
    layers = {"projection_head.0.weight": noise(16, 32), "projection_head.3.weight": noise(32, D)}
    return under("res_model.", resnet(""), layers) | {
        "res_model.prototypes.weight": rows(30).T.contiguous()
    }


@ORIENTATIONS.tree("Keras and paddle: a bias as long as the matrix is wide",
                   Head("prototypes", 30), refusal=TRANSPOSED, note=TRANSPOSED)  # fmt: skip
def weight_with_a_bias_of_its_columns() -> Any:
    return {"prototypes.weight": rows(30).T.contiguous(), "prototypes.bias": noise(60)}


@ORIENTATIONS.tree("SimGCD, TEMI: one prototype for each of few classes",
                   Head("head.last_layer", 14, 20, 48))  # fmt: skip
def few_prototypes_with_a_scale() -> Any:
    return (
        vit()
        | chain("head.mlp", widths=(16, 32, 32, 48))
        | normed("head.last_layer", 14, k=20, d=48)
    )


@ORIENTATIONS.tree("lightly: SwaVPrototypes, n_prototypes of few classes",
                   Head("prototypes.heads.0", 14, 20, 48))  # fmt: skip
def few_prototypes_with_a_bias() -> Any:
    return lightning(plain("prototypes.heads.0", 14, bias=True, k=20, d=48))


@ORIENTATIONS.tree("UNO: labelled heads, 80 classes of 256 dimensions",
                   Head("head_lab.prototypes", 14, 20, 48))  # fmt: skip
def few_prototypes_after_a_projector() -> Any:
    return (
        resnet("encoder.")
        | chain("projector.mlp", (0, 3), (16, 32, 48))
        | plain("head_lab.prototypes", 14, k=20, d=48)
    )


@ORIENTATIONS.tree("torch: weight_norm(dim=None), one scale for the matrix", Head("last_layer", 30))
def scale_of_the_whole_matrix() -> Any:
    return {"last_layer.weight_g": torch.tensor(3.0), "last_layer.weight_v": rows(30)}


@ORIENTATIONS.tree("torch: weight_norm(dim=1), a scale for each dimension",
                   Head("last_layer", 30), refusal="weight_g")  # fmt: skip
def scale_of_each_dimension() -> Any:
    stretched = rows(30) * torch.logspace(-3, 3, D)  # alone it has other duplicates
    return {"last_layer.weight_g": rows(30).norm(dim=0)[None], "last_layer.weight_v": stretched}

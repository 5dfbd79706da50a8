"""Files that hold no prototypes, with the real names of their layers and every width divided.

A classifier, a projection head, a predictor or a queue has the shape of prototypes;
none of them may ever be counted without being asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.planted import linear, noise, resnet, under, vit

State = dict[str, Any]

TIMM = (
    "vit_tiny_patch16_224", "vit_small_patch14_dinov2", "vit_base_patch16_siglip_224",
    "deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224", "convnext_tiny",
    "efficientnet_b0", "mobilenetv3_small_100", "mixer_s32_224", "xcit_nano_12_p16_224",
    "regnety_002", "beit_base_patch16_224", "eva02_tiny_patch14_224", "cait_xxs24_224",
    "levit_128s", "volo_d1_224", "caformer_s18", "vgg11", "densenet121", "resnet50",
)  # fmt: skip


def timm_state(name: str) -> State:
    """Weights of a timm model, with a sixteenth of the values or less."""
    import timm

    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False)
    return _divided(model.state_dict())


def torchvision_state(name: str) -> State:
    """The same for torchvision, whose classifiers have other names."""
    import torchvision

    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None)
    return _divided(model.state_dict())


TORCHVISION = ("resnet18", "vgg11", "vit_b_16", "mobilenet_v2", "squeezenet1_0")


def _divided(state: State) -> State:
    shapes = {key: [n // 16 if n >= 128 else n for n in t.shape] for key, t in state.items()}
    return {key: noise(*shape) for key, shape in shapes.items()}


def mlp(name: str, layers: tuple[int | str, ...], *widths: int, bias: bool = True) -> State:
    state = {}
    for layer, inputs, outputs in zip(layers, widths, widths[1:], strict=False):
        state |= linear(f"{name}.{layer}", outputs, inputs, bias=bias)
    return state


def simsiam() -> State:
    """simsiam/builder.py: a bottleneck and then more rows than columns, as prototypes have."""
    encoder = resnet("") | mlp("fc", (0, 3), 64, 64, 64, bias=False) | linear("fc.6", 64, 64)
    predictor = linear("predictor.0", 16, 64, bias=False) | linear("predictor.3", 64, 16)
    return {"state_dict": under("module.encoder.", encoder) | under("module.", predictor)}


def moco_v2() -> State:
    """moco/builder.py with --mlp; the queue lies D x K."""
    state = {}
    for role in ("encoder_q", "encoder_k"):
        state |= under(f"module.{role}.", resnet(""), mlp("fc", (0, 2), 64, 64, 16))
    return {"state_dict": state | {"module.queue": noise(16, 200), "module.queue_ptr": noise(1)}}


def moco_v3() -> State:
    """moco-v3, moco/builder.py."""
    state = under("module.", mlp("predictor", (0, 3), 16, 128, 16, bias=False))
    for role in ("base_encoder", "momentum_encoder"):
        head = mlp("head", (0, 3, 6), 48, 128, 128, 16, bias=False)
        state |= under(f"module.{role}.", vit(""), head)
    return {"arch": "vit_small", "state_dict": state}


def byol() -> State:
    """solo-learn, methods/byol.py."""
    state = resnet() | resnet("momentum_backbone.") | linear("classifier", 10, 64)
    for name in ("projector", "momentum_projector", "predictor"):
        state |= mlp(name, (0, 3), 64 if name != "predictor" else 16, 128, 16)
    return {"pytorch-lightning_version": "2.1.2", "state_dict": state}


def detr() -> State:
    """facebookresearch/detr, models/detr.py."""
    return {"model": under("", resnet("backbone.0.body."), linear("class_embed", 92, 32),
                           mlp("bbox_embed.layers", (0, 1, 2), 32, 32, 32, 4),
                           {"query_embed.weight": noise(100, 32)})}  # fmt: skip


def clip() -> State:
    """openai/CLIP, clip/model.py."""
    return under("visual.", vit("transformer."), {"proj": noise(48, 32)}) | {
        "text_projection": noise(32, 32),
        "token_embedding.weight": noise(200, 32),
        "positional_embedding": noise(77, 32),
        "logit_scale": torch.tensor(4.6),
    }


def bert() -> State:
    """transformers, modeling_bert.py: BertForMaskedLM, decoder and embeddings in one storage."""
    words = noise(300, 32)
    return {
        "bert.embeddings.word_embeddings.weight": words,
        "bert.embeddings.position_embeddings.weight": noise(64, 32),
        "bert.encoder.layer.0.output.dense.weight": noise(32, 128),
        "cls.predictions.transform.dense.weight": noise(32, 32),
        "cls.predictions.decoder.weight": words,
        "cls.predictions.decoder.bias": noise(300),
    }


HANDMADE: dict[str, Callable[[], Any]] = {
    "DINO: hub, the backbone alone": lambda: vit(""),
    "DINO: eval_linear.py": lambda: {"epoch": 9, "state_dict": linear("module.linear", 100, 48)},
    "DINOv2: hub, a linear classifier": lambda: linear("linear", 100, 48),
    "SimSiam": simsiam,
    "lightly SimSiam": lambda: {
        "state_dict": resnet()
        | mlp("projection_head.layers", (0, 3, 6), 32, 64, 64, 64, bias=False)
        | mlp("prediction_head.layers", (0, 3), 64, 16, 64)
    },
    "MoCo v2": moco_v2,
    "MoCo v3": moco_v3,
    "BYOL": byol,
    "SimCLR of lightly": lambda: {
        "state_dict": resnet() | mlp("projection_head.layers", (0, 3), 64, 64, 16, bias=False)
    },
    "Barlow Twins": lambda: {
        "model": under("module.", resnet(), mlp("projector", (0, 3, 6), 64, 96, 96, 96, bias=False))
    },
    "VICReg": lambda: {
        "model": under("module.", resnet(), mlp("projector", (0, 3), 64, 96, 96))
        | linear("module.projector.6", 96, 96, bias=False)
    },
    "PCL: centroids are never saved": lambda: {
        "state_dict": under("module.encoder_q.", resnet(""), mlp("fc", (0, 2), 64, 64, 16))
        | {"module.queue": noise(16, 200)}
    },
    "MAE": lambda: {
        "model": vit("")
        | linear("decoder_embed", 16, 48)
        | under("decoder_", vit(""))
        | linear("decoder_pred", 96, 16)
    },
    "I-JEPA": lambda: {
        "encoder": under("module.", vit("")),
        "predictor": under("module.", linear("predictor_embed", 16, 48),
                           linear("predictor_proj", 48, 16)),
        "target_encoder": under("module.", vit("")),
    },
    "data2vec": lambda: {"model": under("", vit("modality_encoders.IMAGE."),
                                        linear("final_proj", 48, 48), {"_ema": vit("")})},
    "CLIP": clip,
    "BERT": bert,
    "GPT-2": lambda: {"transformer.wte.weight": noise(300, 32), "lm_head.weight": noise(300, 32)},
    "HuBERT": lambda: {
        "model": under("encoder.layers.0.", linear("fc2", 32, 128))
        | linear("final_proj", 16, 32)
        | {"label_embs_concat": noise(100, 16)}
    },
    "a language model, embedding and output alike": lambda: {
        "encoder.weight": noise(300, 32),
        **linear("decoder", 300, 32),
    },
    "an autoencoder with a bottleneck": lambda: linear("encoder", 16, 96)
    | linear("decoder", 96, 16),
    "a codebook that projects, and has none": lambda: linear("quantizer.project_in", 8, 64)
    | linear("quantizer.project_out", 64, 8),
    "DETR": detr,
    "Segment Anything": lambda: vit("image_encoder.")
    | mlp("mask_decoder.output_hypernetworks_mlps.0.layers", (0, 1, 2), 32, 32, 32, 4)
    | mlp("mask_decoder.iou_prediction_head.layers", (0, 1, 2), 32, 64, 64, 40)
    | {"prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": noise(2, 16)},
    "YOLO with masks": lambda: {
        "model": {"model.22.proto.cv1.conv.weight": noise(8, 8, 3, 3)}
        | {"model.22.proto.upsample.weight": noise(8, 8, 2, 2)}
    },
    "no weights at all": lambda: {"epoch": 3, "optimizer": {"param_groups": [{"lr": 0.1}]}},
    "an optimiser alone": lambda: {
        "state": {0: {"exp_avg": noise(60, 24), "exp_avg_sq": noise(60, 24)}},
        "param_groups": [{"lr": 0.1}],
    },
    "extracted features": lambda: {"features": noise(100, 24), "labels": torch.arange(100)},
}  # fmt: skip

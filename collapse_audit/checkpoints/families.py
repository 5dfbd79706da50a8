"""Which method wrote a checkpoint, where its layout tells: a family of the manifest."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from collapse_audit.containers.tensors import Checkpoint

#: Families whose method has no prototypes, by what people call them.
WITHOUT_PROTOTYPES: Final = {"simdino": "SimDINO", "lejepa": "LeJEPA"}


def guess_family(checkpoint: Checkpoint, names: Iterable[str]) -> str | None:
    """The family of the manifest that wrote a checkpoint with heads of these names, or none."""
    # Without heads: one of WITHOUT_PROTOTYPES.
    # SeLa-v2 files look like those of DeepCluster-v2 or SwAV, PMSN's like MSN's, Web-SSL's like
    # DINOv2's, and runs of DINO's code by others like DINO.
    heads, top = set(names), set(checkpoint.top_level)
    text = "\n" + "\n".join(checkpoint.tensors) + "\n"

    def has(pattern: str) -> bool:
        return re.search(pattern, text) is not None

    if not heads:
        # SimDINO keeps DINO's networks and options and takes the last layer away
        own_option = "use_simdino" in checkpoint.options
        if own_option or (has(r"\bdino_head\.mlp\.") and "last_layer" not in text):
            return "simdino"
        return "lejepa" if has(r"\bsigreg\.") else None
    lightning = "pytorch-lightning_version" in top
    students = bool({"teacher", "student"} & top)
    normed = r"(?:weight_v|parametrizations\.weight\.original1)\n"
    for family, tells in (
        ("collapse_audit", checkpoint.metadata.get("format") == "collapse-audit/head"),
        ("vissl_dino", "classy_state_dict" in top
            and has(rf"momentum_teacher\..*prototypes0\.{normed}")
            and not has(r"momentum_teacher\..*prototypes1\.")),
        ("vissl_swav", "classy_state_dict" in top and has(r"prototypes0\.weight\n")),
        ("sonata", has(r"mask_head\.prototype\.")),
        ("wespeaker_dino", has(r"\n[st]_model\.")),
        ("3dspeaker_sdpn", students and "prototypes" in checkpoint.tensors),
        ("spt_dino", lightning and has(r"/projector\.teacher\.\d+\.weight\n")),
        ("mmselfsup_swav", has(r"head\.loss(?:_module)?\.prototypes\.")),
        ("mmpretrain_dino", "message_hub" in top or has(r"/neck\.last_layer\.")),
        ("solo_deepclusterv2", has(r"\bprototypes\.\d+\.weight\n") and has(r"projector\.0\.")),
        ("solo_dino", lightning and has(r"/momentum_head\.last_layer\.")),
        ("solo_swav", has(r"\bprototypes\.weight(?:_v)?\n") and has(r"[/\n]projector\.0\.")),
        ("smog", has(r"group_features\n")),
        ("lightly_swav", lightning and has(r"/prototypes\.(?:heads\.\d+|layers)\.weight\n")),
        ("lightly_ibot", lightning and has(r"/teacher_(?:cls_|patch_)?head\.last_layer\.")
            and has(r"teacher_patch_head\.")),
        ("lightly_dino", lightning and has(
            r"/(?:teacher_head|(?:student_)?projection_head)\.last_layer\."
        )),
        ("mugs", "group_head" in heads),
        ("temi", has(r"head\.heads\.\d+\.last_layer\.")),
        ("uno", has(r"\bhead_unlab\.prototypes\.")),
        ("ibot", "ibot_loss" in top or "last_layer2." in text),
        ("franca", has(r"_head\.last_layers\.")),
        ("dinov3", "dino_head" in heads and has(r"dino_head\.last_layer\.weight\n")),
        ("dinov2", "dino_head" in heads),
        ("capi", has(r"head\.layer\.weight\n") or "backbone.decoder." in text),
        ("msn", "prototypes" in checkpoint.tensors and "target_encoder" in top),
        ("deepclusterv2", "prototypes.prototypes0.weight\n" in text),
        ("swav", "prototypes" in heads and "projection_head.0.weight\n" in text),
        ("esvit", "head_dense" in heads  # or the head is set on the backbone itself
            or (has(r"\n(?:teacher|student)/(?:module\.)?(?:layers|patch_embed)\.")
                and has(r"\n(?:teacher|student)/(?:module\.)?head\.last_layer\."))),
        ("carp", "ncrops" in checkpoint.options),
        ("simgcd", "model" in top and has(r"/1\.last_layer\.")),
        ("dino", students and "head" in heads),
    ):  # fmt: skip
        if tells:
            return family
    return None

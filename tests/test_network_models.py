import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from collapse_audit.errors import CheckpointError, CollapseAuditWarning, ParameterError
from collapse_audit.manifest import load_manifest
from collapse_audit.network import backbones, load_head_model
from collapse_audit.network.backbones import build_backbone, input_size
from collapse_audit.network.heads import build_projection, input_width
from collapse_audit.sources import resolve_source

# width of the features, whether the file holds a centre, arguments that no tensor tells
FILES = {
    "dino_vit_full_norm.pth": (32, True, {"num_heads": 2}),
    "dino_rn50_published.pth": (128, False, {}),
    "ibot_vit_shared.pth": (32, True, {"num_heads": 2}),
    "esvit_swin_vr.pth": (48, True, {}),
    "msn_published.pth.tar": (32, False, {"num_heads": 2}),
    "swav_flat_legacy.pth.tar": (128, False, {}),
    "carp_checkpoint0000.pth": (64, False, {}),
    "lightly_dino.ckpt": (64, True, {}),
    "dinov2_teacher_checkpoint.pth": (32, False, {"num_heads": 2}),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore::collapse_audit.errors.CollapseAuditWarning")
def test_every_weight_of_an_official_file_finds_its_place(shared_checkpoints, name):
    width, has_centre, arguments = FILES[name]
    model = load_head_model(shared_checkpoints / name, backbone_arguments=arguments)
    assert (model.width, model.centre is not None) == (width, has_centre)
    side = model.side or 32
    with torch.inference_mode():
        features = model.features_of(torch.zeros(2, 3, side, side))
        assert model.bottleneck_of(features).shape == (2, model.prototypes.d)


def test_the_dino_pair_agrees_with_the_official_code_layer_by_layer(shared_checkpoints):
    reference = np.load(shared_checkpoints / "dino_vit_mlcd_ref.npz")
    model = load_head_model(
        shared_checkpoints / "dino_vit_mlcd.pth", backbone_arguments={"num_heads": 4}
    )
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    images = np.repeat(reference["images_u8"][:32, None] / 255, 3, axis=1)
    images = (images - mean[:, None, None]) / std[:, None, None]
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        model.to(dtype, torch.device("cpu"))
        with torch.inference_mode():
            features = model.features_of(torch.from_numpy(images).to(dtype))
            # the reference is that of unit norm
            bottleneck = nn.functional.normalize(model.bottleneck_of(features), dim=1)
        for ours, theirs in (
            (features, reference["features_f64"][:32]),
            (bottleneck, reference["bottleneck_f64"][:32]),
        ):
            difference = np.abs(ours.numpy() - theirs).max()
            assert difference <= tolerance * np.abs(theirs).max()
    np.testing.assert_allclose(model.centre, reference["center"][0], rtol=1e-6)


def test_a_file_without_a_timm_twin_says_so(shared_checkpoints):
    with pytest.raises(CheckpointError, match=r"no timm twin .* give them with `data="):
        load_head_model(shared_checkpoints / "capi_student_ema.pth")
    # features and logits need no backbone
    assert load_head_model(shared_checkpoints / "capi_student_ema.pth", images=False).width == 48


def test_the_student_gets_its_own_network_and_no_centre(shared_checkpoints):
    path = shared_checkpoints / "dino_vit_full_norm.pth"
    models = [
        load_head_model(path, branch=branch, backbone_arguments={"num_heads": 2})
        for branch in ("teacher", "student")
    ]
    assert models[1].centre is None
    weights = [model.projection[0].weight for model in models]
    assert not torch.equal(*weights)


def _original_swin(state):
    def back(match):
        return f"layers.{int(match[1]) - 1}.downsample"

    return {re.sub(r"layers\.(\d+)\.downsample", back, key): v for key, v in state.items()}


def _original_xcit(state):
    fused = {}
    for key, value in state.items():
        found = re.fullmatch(r"(cls_attn_blocks\.\d+\.attn\.)([qkv])(\..*)", key)
        if found is None:
            fused[key.replace("pos_embed.", "pos_embeder.")] = value
        elif found[2] == "q":
            parts = [state[f"{found[1]}{letter}{found[3]}"] for letter in "qkv"]
            fused[f"{found[1]}qkv{found[3]}"] = torch.cat(parts)
    return fused


def _random(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) * 0.1 + 0.01)
    return model.eval()


def _vit():
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=1,
                             num_classes=0)  # fmt: skip


def _wide_resnet():
    from timm.models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, (1, 1, 2, 1), num_classes=0, channels=(64, 16, 16, 32))


def _swin():
    from timm.models.swin_transformer import SwinTransformer

    return SwinTransformer(img_size=224, embed_dim=16, depths=(1, 2), num_heads=(1, 2),
                           num_classes=0)  # fmt: skip


def _xcit():
    from timm.models.xcit import Xcit

    return Xcit(img_size=224, patch_size=16, embed_dim=32, depth=1, num_heads=2, num_classes=0,
                tokens_norm=True, cls_attn_layers=1)  # fmt: skip


@pytest.mark.parametrize(
    ("make", "rename"),
    [(_vit, dict), (_wide_resnet, dict), (_swin, _original_swin), (_xcit, _original_xcit)],
)
def test_a_twin_computes_what_the_original_computes(make, rename):
    original = _random(make())
    state = rename({key: value.clone() for key, value in original.state_dict().items()})
    twin = build_backbone(state)
    side = input_size(twin) or 64
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(twin(images), original(images))


def test_weights_without_a_place_are_listed():
    state = _vit().state_dict() | {"blocks.0.attn.rope": torch.zeros(2)}
    del state["norm.bias"]
    with pytest.raises(
        CheckpointError, match=r"left over: blocks\.0\.attn\.rope; missing: norm\.bias"
    ):
        build_backbone(state)


def test_a_named_timm_model_replaces_the_recognised_one():
    import timm

    original = _random(timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1))
    twin = build_backbone(
        original.state_dict(), name="vit_tiny_patch16_224", arguments={"depth": 1}
    )
    torch.testing.assert_close(
        twin(torch.ones(1, 3, 224, 224)), original(torch.ones(1, 3, 224, 224))
    )
    with pytest.raises(ParameterError, match="timm cannot build no_such_model"):
        build_backbone(original.state_dict(), name="no_such_model")


def test_a_named_timm_model_is_built_for_the_images_that_the_file_was_trained_on():
    import timm

    original = _random(timm.create_model("test_vit", num_classes=0, img_size=48))
    with pytest.warns(CollapseAuditWarning, match="images of 48 x 48 pixels, the size of the file"):
        twin = build_backbone(original.state_dict(), name="test_vit")
    assert input_size(twin) == 48
    images = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(twin(images), original(images))
    with pytest.raises(CheckpointError, match=r"left over: pos_embed"):
        build_backbone(original.state_dict(), name="test_vit", arguments={"img_size": 64})


def test_the_number_of_heads_is_asked_for_where_it_cannot_be_known():
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(img_size=32, patch_size=8, embed_dim=96, depth=1, num_heads=4)
    state = {key: value for key, value in model.state_dict().items() if "head." not in key}
    with pytest.raises(CheckpointError, match="Give num_heads=N to the backbone"):
        build_backbone(state)
    assert build_backbone(state, arguments={"num_heads": 4}).blocks[0].attn.num_heads == 4


def test_a_backbone_that_cannot_be_built_is_the_files_fault_unless_arguments_were_given(
    monkeypatch,
):
    def fail(_state, _options):
        raise AssertionError

    marker, _, rename = backbones._KINDS["ViT"]
    monkeypatch.setitem(backbones._KINDS, "ViT", (marker, fail, rename))
    with pytest.raises(CheckpointError, match=r"timm cannot build ViT with \{\}: AssertionError"):
        build_backbone({marker: torch.ones(3)})
    with pytest.raises(ParameterError, match="Check its name and arguments"):
        build_backbone({marker: torch.ones(3)}, arguments={"num_heads": 7})


def test_a_projection_head_with_batch_norm_computes_what_its_layers_do():
    layers = nn.Sequential(
        nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4)
    ).eval()
    with torch.no_grad():
        layers[1].running_mean.uniform_()
        layers[1].running_var.uniform_(0.5, 2)
    rebuilt = build_projection(layers.state_dict(), activation="relu")
    x = torch.randn(7, 6)
    torch.testing.assert_close(rebuilt(x), layers(x))
    assert input_width(rebuilt) == 6


def test_no_projection_is_the_identity():
    x = torch.randn(3, 4)
    rebuilt = build_projection({}, activation="gelu")
    torch.testing.assert_close(rebuilt(x), x)
    assert input_width(rebuilt) is None


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"gate.weight": torch.zeros(2, 2)}, "a layer 'gate'"),
        ({"0.kernel": torch.zeros(2, 2)}, "fit no linear or normalisation layer"),
        ({"0.weight": torch.zeros(2, 2), "0.gate": torch.zeros(2)}, "left over"),
    ],
)
def test_an_unknown_layer_of_a_projection_head_is_refused(state, message):
    with pytest.raises(CheckpointError, match=message):
        build_projection(state, activation="gelu")


def test_a_head_alone_takes_pixels_and_says_so(tmp_path):
    from safetensors.numpy import save_file

    weight = np.random.default_rng(0).standard_normal((9, 16)).astype(np.float32)
    save_file({"head.last_layer.weight": weight}, tmp_path / "head.safetensors")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = load_head_model(tmp_path / "head.safetensors")
    assert "pixels themselves stand in" in str(caught[-1].message)
    assert model.features_of(torch.rand(2, 3, 4, 4)).shape == (2, 16)
    with pytest.raises(ParameterError, match="of 25 pixels do not fit this network"):
        model.features_of(torch.rand(2, 3, 5, 5))


def test_a_head_of_our_own_trainer_brings_its_backbone_along(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Linear(16, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 5), nn.LayerNorm(5), nn.GELU()
    )
    mlp = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 4))
    tensors = {"dino_loss.center": torch.arange(9.0)[None]}
    for branch in ("teacher", "student"):
        tensors |= {
            f"{branch}.head.last_layer.weight_v": torch.randn(9, 4),
            f"{branch}.head.last_layer.weight_g": torch.ones(9, 1),
        }
        for part, module in (("backbone.layers", backbone), ("head.mlp", mlp)):
            for key, value in module.state_dict().items():
                tensors[f"{branch}.{part}.{key}"] = value.clone()
    save_file(tensors, tmp_path / "head.safetensors")
    model = load_head_model(tmp_path / "head.safetensors")
    images = torch.rand(3, 1, 4, 4).expand(3, 3, 4, 4)
    with torch.inference_mode():
        found = model.bottleneck_of(model.features_of(images))
        torch.testing.assert_close(found, mlp(backbone(images[:, 0].flatten(1))))
    assert model.centre.tolist() == list(range(9))


def test_every_timm_name_of_the_manifest_is_a_model():
    import timm

    names = {entry.timm_name for entry in load_manifest().entries} - {None}
    assert names
    assert {name for name in names if not timm.is_model(name)} == set()


@pytest.mark.parametrize(("listed", "used"), [("resnet18", ["resnet18"]), ("resnet50", [])])
def test_the_listed_timm_model_is_used_where_it_fits_the_file(listed, used, tmp_path, monkeypatch):
    import timm

    torch.manual_seed(0)
    twin = timm.create_model("resnet18", num_classes=0).eval()
    state = {f"backbone.{key}": value for key, value in twin.state_dict().items()}
    state["head.last_layer.weight_g"] = torch.ones(8, 1)
    state["head.last_layer.weight_v"] = torch.randn(8, 512)
    torch.save({"teacher": state}, tmp_path / "file.pth")
    entry = replace(load_manifest().get("dino_resnet50"), timm_name=listed)

    models = []
    monkeypatch.setattr(
        "collapse_audit.network.backbones._load", record_fits(models, backbones._load)
    )
    model = load_head_model(replace(resolve_source(tmp_path / "file.pth"), entry=entry))
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(model.features_of(images), twin(images))
    assert [name for name in models if name] == used


def record_fits(models, load):
    """Note the architecture of every timm configuration that the weights fit."""

    def recording(model, state):
        load(model, state)
        models.append(getattr(model, "default_cfg", None) and model.default_cfg["architecture"])

    return recording


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("vit_tiny_patch16_224", {"embed_dim": -1}, "negative dimension"),
        ("vit_tiny_patch16_224", {"num_heads": 0}, "modulo by zero"),
        ("vit_tiny_patch16_224", {"num_classes": 3}, "multiple values"),
        ("vit_tiny_patch16_224.nope", {}, "Invalid pretrained tag"),
        ("vit_tiny_patch16", {}, "no such model.*Did you mean .*vit_tiny_patch16_224"),
        ("hf-hub:some/where", {}, "no such model"),
    ],
)
def test_arguments_that_timm_cannot_use_are_one_line(name, arguments, message):
    with pytest.raises(ParameterError, match=message) as caught:
        build_backbone(_vit().state_dict(), name=name, arguments=arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fault",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"
        ),
    ],
)
def test_a_machine_that_fails_is_not_blamed_on_the_arguments(fault, monkeypatch):
    def failing(*_arguments, **_options):
        raise fault

    state = _vit().state_dict()
    monkeypatch.setattr("timm.models.vision_transformer.VisionTransformer", failing)
    with pytest.raises(RuntimeError) as caught:
        build_backbone(state)
    assert caught.value is fault

"""Networks that are trained: a backbone, a projection head, and its rows, the prototypes."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from collapse_audit.errors import ParameterError
from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.words import did_you_mean


class PrototypeLayer(nn.Module):
    """Weight-normed linear layer without bias; its keys are those of DINO's ``last_layer``."""

    def __init__(self, d: int, k: int, *, train_norms: bool) -> None:
        super().__init__()
        bound = 1 / math.sqrt(d)  # as ``nn.Linear`` has it
        # norms, trained only with the von Mises-Fisher normaliser, and directions
        self.weight_g = nn.Parameter(torch.ones(k, 1), requires_grad=train_norms)
        self.weight_v = nn.Parameter(torch.empty(k, d).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (... x k): inner products of unit features (... x d) with the prototypes."""
        return functional.linear(x, functional.normalize(self.weight_v, dim=1) * self.weight_g)


class ProjectionHead(nn.Module):
    """DINO's projection head: an MLP to D dimensions, unit norm, prototypes.

    The keys (``mlp.0``, ``mlp.2``, ``mlp.4``, ``last_layer``) are DINO's.
    """

    def __init__(
        self, in_features: int, *, hidden: int, d: int, k: int, train_norms: bool = False
    ) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(in_features, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, d),
        )
        self.last_layer = PrototypeLayer(d, k, train_norms=train_norms)

    def bottleneck(self, x: Tensor) -> Tensor:
        """Unit features (... x d) that are compared with the prototypes."""
        # 1e-6, not the 1e-12 of float32: DINOHead's own value, safe under half-precision autocast
        return functional.normalize(self.mlp(x).float(), dim=-1, eps=1e-6)


class SmallBackbone(nn.Module):
    """MLP over flattened images, for data sets small enough to train on a CPU in seconds."""

    def __init__(self, in_features: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(in_features, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Features (... x hidden) of flattened images in [0, 1] (... x pixels)."""
        features: Tensor = self.layers(images)
        return features


class TimmBackbone(nn.Module):
    """A timm model without its classifier, drawn at random, never downloaded; any crop size."""

    def __init__(self, name: str, side: int, *crops: int) -> None:
        super().__init__()
        import timm

        if name not in timm.list_models():
            close = did_you_mean(name, timm.list_models())
            raise ParameterError(f"backbone: timm has no {name!r}.", hint=close)
        options: dict[str, Any] = {"num_classes": 0}
        model: Any
        try:  # vision transformers interpolate their position embedding for local crops
            model = timm.create_model(name, dynamic_img_size=True, **options)
        except TypeError:
            model = timm.create_model(name, **options)
        if getattr(model, "pos_embed", None) is not None and hasattr(model, "set_input_size"):
            patch = model.patch_embed.patch_size[0]
            if wrong := [crop for crop in (side, *crops) if crop % patch]:
                raise ParameterError(
                    f"crops of {wrong[0]} pixels do not part into the patches of {name}.",
                    hint=f"Use image_size=N and local_size=N with multiples of {patch}.",
                )
            model.set_input_size(img_size=side)  # the file then tells the size of the images
        self.model: nn.Module = model
        self.width = cast("int", model.num_features)

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features (... x width) of images in [-1, 1] (... x channels x height x width)."""
        flat = images.flatten(0, -4)
        features: Tensor = self.model(flat)
        return features.view(*images.shape[:-3], -1)


class Network(nn.Module):
    """Backbone (the identity where features are given) and projection head of one branch."""

    def __init__(self, backbone: nn.Module, head: ProjectionHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Backbone features (... x width), bottleneck features (... x d), logits (... x k)."""
        features = self.backbone(x)
        bottleneck = self.head.bottleneck(features)
        return features, bottleneck, self.head.last_layer(bottleneck)

    @property
    def prototypes(self) -> nn.Parameter:
        """The ``v`` of the prototype layer (k x d)."""
        return self.head.last_layer.weight_v


def make_network(config: HeadTrainingConfig, in_features: int, *, images: bool) -> Network:
    """A network for samples of so many pixels or features, drawn by torch's global generator."""
    backbone: nn.Module
    if not images:
        backbone, width = nn.Identity(), in_features
    elif config.backbone == "small":
        backbone, width = SmallBackbone(in_features, config.hidden), config.hidden
    else:
        crops = [config.local_size] if config.local_views else []
        backbone = TimmBackbone(config.backbone, config.image_size, *crops)
        width = backbone.width
    head = ProjectionHead(
        width, hidden=config.hidden, d=config.d, k=config.k, train_norms=config.vmf
    )
    return Network(backbone, head)

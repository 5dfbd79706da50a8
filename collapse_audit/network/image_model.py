"""What images can be run through: a backbone, with a head behind it or alone."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collapse_audit.errors import CheckpointError, ParameterError
from collapse_audit.manifest import load_manifest
from collapse_audit.manifest.recipes import Recipe
from collapse_audit.network.backbones import MARKERS, build_backbone, input_size
from collapse_audit.network.heads import input_width
from collapse_audit.network.tensors import lone_backbone_state
from collapse_audit.sources import ResolvedSource, resolve_source

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from collapse_audit.prototypes import Branch


class ImageModel:
    """From images to the features of a backbone."""

    __slots__ = ()

    recipe: Recipe
    backbone: nn.Module | None

    @property
    def width(self) -> int | None:
        """Width of the features that the head takes; ``None`` without a head."""
        return None

    @property
    def side(self) -> int | None:
        """Side of the images that the backbone takes; ``None`` if any, or without a backbone."""
        return None if self.backbone is None else input_size(self.backbone)

    @property
    def takes_pixels(self) -> bool:
        """Whether features are made of the grey levels themselves, in [0, 1]."""
        return self.backbone is None or not hasattr(self.backbone, "forward_features")

    def features_of(self, images: Tensor) -> Tensor:
        """Backbone features of prepared images (n x 3 x h x w).

        Args:
            images: Of one size.

        Returns:
            n x width.

        Raises:
            ParameterError: If the size is not the backbone's, or the features do not fit the head.
        """
        if self.backbone is None:
            return _pixels(images, self.width)
        if self.takes_pixels:
            result: Tensor = self.backbone(_pixels(images, input_width(self.backbone)))
            return result
        side = self.side
        if side is not None and tuple(images.shape[2:]) != (side, side):
            raise ParameterError(
                f"images are {images.shape[3]} x {images.shape[2]} pixels after preprocessing, "
                f"the backbone takes {side} x {side}.",
                hint=f"Use `resize={side}`.",
            )
        features: Tensor = self.backbone(images)
        if self.width is not None and features.shape[1] != self.width:
            raise ParameterError(
                f"the backbone gives features of width {features.shape[1]}, "
                f"the head takes {self.width}.",
                hint="Give the features that the head was trained on with `data=FILE.npz`.",
            )
        return features

    def to(self, dtype: torch.dtype, device: torch.device) -> None:
        """Bring the networks to one type and device, in place."""
        for module in (self.backbone, getattr(self, "projection", None)):
            if module is not None:
                module.to(device=device, dtype=dtype)


@dataclass(frozen=True, slots=True, eq=False)
class BackboneModel(ImageModel):
    """A backbone alone, of a method without prototypes or of a file without its head.

    Attributes:
        source: What the user typed.
        backbone: From images to features; ``None`` where features are given.
        recipe: What the family's code does; of it only the preprocessing is used.
        branch: Which network was asked for.
    """

    source: str
    backbone: nn.Module | None
    recipe: Recipe
    branch: Branch | None = None


def load_backbone(
    source: str | Path | ResolvedSource,
    *,
    branch: Branch = "teacher",
    images: bool = True,
    backbone: str | None = None,
    backbone_arguments: Mapping[str, Any] | None = None,
) -> BackboneModel:
    """Rebuild the backbone of a file without prototypes.

    Args:
        source: As for :func:`~collapse_audit.load_prototypes`, or what ``resolve_source`` gave.
        branch: Which network, where a file has two.
        images: Whether the backbone is needed.
        backbone: A timm model to use instead of the recognised one.
        backbone_arguments: Passed to the model, such as ``num_heads``.

    Returns:
        The model, in evaluation mode on the CPU.

    Raises:
        NoPrototypesError: If no backbone is found either.
        CheckpointError: If timm has no twin of it, or a weight of the file finds no place.
        ParameterError: If the timm model or its arguments do not fit.
    """
    resolved = source if isinstance(source, ResolvedSource) else resolve_source(source)
    model = None
    if not images and (backbone is not None or backbone_arguments):
        raise ParameterError(
            "there is no backbone to build: the samples are no images.",
            hint="Leave `backbone=NAME` and its arguments out.",
        )
    if images:
        state = lone_backbone_state(resolved.checkpoint, branch, MARKERS)
        if not state:
            resolved.select(branch=branch, head=None)  # says what is in the file instead
        model = build_model(state, backbone, backbone_arguments, None)
    recipe = load_manifest().recipe(resolved.family)
    return BackboneModel(resolved.spec, model, recipe, branch)


def build_model(
    state: dict[str, Tensor], name: str | None, arguments: Mapping[str, Any] | None, listed: object
) -> nn.Module:
    """The model asked for, else the one that is on record, else the one the tensors tell."""
    if name is None and not arguments and isinstance(listed, str):
        with suppress(CheckpointError, ParameterError):
            return build_backbone(state, name=listed)
    return build_backbone(state, name=name, arguments=arguments)


def _pixels(images: Tensor, width: int | None) -> Tensor:
    """Grey levels in one row, for an MLP, or for a head that came without its backbone."""
    flat = images.mean(dim=1).flatten(1)
    if flat.shape[1] != width:
        raise ParameterError(
            f"images of {flat.shape[1]} pixels do not fit this network, which has no "
            f"convolution and takes {width}.",
            hint="Use `resize=N`, or give features with `data=FILE.npz`.",
        )
    return flat

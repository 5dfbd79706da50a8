"""One head with all that stands before it: backbone, projection, prototypes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from collapse_audit.checkpoints import find_heads, load_prototypes, locate_source
from collapse_audit.checkpoints.layouts import guess_family
from collapse_audit.checkpoints.reading import read_checkpoint
from collapse_audit.errors import CheckpointError, CollapseAuditWarning, ParameterError
from collapse_audit.manifest import CheckpointEntry, load_manifest
from collapse_audit.network.backbones import build_backbone, input_size
from collapse_audit.network.projection import (
    Network,
    Recipe,
    build_projection,
    find_centre,
    input_width,
    recipe_for,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from collapse_audit.prototypes import Branch, Prototypes


@dataclass(frozen=True, slots=True, eq=False)
class HeadModel:
    """A head that images, features or logits can be run through.

    Attributes:
        prototypes: Its last layer.
        projection: From backbone features to the bottleneck; the identity if the file holds none.
        recipe: What the family's code does beyond the tensors.
        family: Method family, if known.
        centre: Centre of the teacher's logits (k), if the file holds one.
        backbone: From images to features; ``None`` where only features or logits can be used.
    """

    prototypes: Prototypes
    projection: nn.Module
    recipe: Recipe
    family: str | None
    centre: npt.NDArray[np.float64] | None
    backbone: nn.Module | None

    @property
    def width(self) -> int:
        """Width of the features that the head takes."""
        return input_width(self.projection) or self.prototypes.d

    @property
    def side(self) -> int | None:
        """Side of the images that the backbone takes; ``None`` if any, or without a backbone."""
        return None if self.backbone is None else input_size(self.backbone)

    @property
    def takes_pixels(self) -> bool:
        """Whether features are made of the grey levels themselves, in [0, 1]."""
        return self.backbone is None or not hasattr(self.backbone, "forward_features")

    def to(self, dtype: torch.dtype, device: torch.device) -> None:
        """Bring both networks to one type and device, in place."""
        for module in (self.projection, self.backbone):
            if module is not None:
                module.to(device=device, dtype=dtype)

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
                hint=f"Use --resize {side}.",
            )
        features: Tensor = self.backbone(images)
        if features.shape[1] != self.width:
            raise ParameterError(
                f"the backbone gives features of width {features.shape[1]}, "
                f"the head takes {self.width}.",
                hint="Give the features that the head was trained on with --data FILE.npz.",
            )
        return features

    def bottleneck_of(self, features: Tensor) -> Tensor:
        """Bottleneck features, just before unit norm and prototypes.

        Args:
            features: n x width of the head, or n x d if they are at the bottleneck already.

        Returns:
            n x d.

        Raises:
            ParameterError: If they have neither width.
        """
        if features.ndim == 2 and features.shape[1] == self.width:
            result: Tensor = self.projection(features)
            return result
        if features.ndim == 2 and features.shape[1] == self.prototypes.d:
            return features
        widths = f"n x {self.width} (what the backbone gives the head)"
        if self.width != self.prototypes.d:
            widths += f" or n x {self.prototypes.d} (at the bottleneck)"
        raise ParameterError(f"features must be {widths}, got shape {tuple(features.shape)}.")


def load_head_model(
    source: str | Path,
    *,
    branch: Branch = "teacher",
    head: str | None = None,
    images: bool = True,
    backbone: str | None = None,
    backbone_arguments: Mapping[str, Any] | None = None,
    family: str | None = None,
    entry: CheckpointEntry | None = None,
) -> HeadModel:
    """Rebuild a head, and the backbone if images are to be run through it.

    Args:
        source: A checkpoint file, or an id of the manifest whose file is in the cache.
        branch: Which network, as for :func:`~collapse_audit.checkpoints.load_prototypes`.
        head: Which head.
        images: Whether the backbone is needed.
        backbone: A timm model to use instead of the recognised one.
        backbone_arguments: Passed to the model, such as ``num_heads``.
        family: Method family; by default that of the entry, else what the file's layout tells.
        entry: Row of the manifest that ``source`` is the file of; by default that of the id. Its
            facts come before those of the family. Where its timm model does not fit the tensors
            of the file, the file is right.

    Returns:
        The model, in evaluation mode on the CPU.

    Raises:
        CheckpointError: If a weight finds no place, or the family has no timm twin.
        SourceError: If there is no such file.
    """
    prototypes = load_prototypes(source, branch=branch, head=head)
    resolved = locate_source(source)
    heads = find_heads(source)
    checkpoint = read_checkpoint(resolved.path)
    location = next((h for h in heads if h.tensor_keys == prototypes.tensor_keys), None)
    if location is None:
        raise CheckpointError(
            f"{resolved.spec}: {prototypes.name} is not a known head, so what stands before it "
            "is unknown.",
            hint="Leave the head out, or give logits with --data FILE.npz.",
        )
    if entry is None and resolved.id is not None:
        entry = load_manifest().get(resolved.id)
    if family is None:
        family = entry.family if entry else guess_family(checkpoint, (h.name for h in heads))
    network, recipe = Network.around(checkpoint, location), recipe_for(family, entry)
    projection = build_projection(network.projection_state(), activation=recipe.activation)
    built = None
    if images:
        state = network.backbone_state()
        if state or backbone is not None:
            listed = entry.timm_name if entry and not backbone_arguments else None
            built = _build(state, backbone, backbone_arguments, listed)
        else:
            warnings.warn(
                f"{resolved.spec}: holds no backbone; the pixels themselves stand in for features.",
                CollapseAuditWarning,
                stacklevel=2,
            )
    centre = find_centre(checkpoint, location)
    return HeadModel(prototypes, projection, recipe, family, centre, built)


def _build(
    state: dict[str, Tensor],
    name: str | None,
    arguments: Mapping[str, Any] | None,
    listed: str | None,
) -> nn.Module:
    """The model asked for, else the one that the manifest lists, else the one the tensors tell."""
    if name is None and listed is not None:
        with suppress(CheckpointError):
            return build_backbone(state, name=listed)
    return build_backbone(state, name=name, arguments=arguments)


def _pixels(images: Tensor, width: int | None) -> Tensor:
    """Grey levels in one row, for an MLP, or for a head that came without its backbone."""
    flat = images.mean(dim=1).flatten(1)
    if flat.shape[1] != width:
        raise ParameterError(
            f"images of {flat.shape[1]} pixels do not fit this network, which has no "
            f"convolution and takes {width}.",
            hint="Use --resize, or give features with --data FILE.npz.",
        )
    return flat

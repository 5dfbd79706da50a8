"""One head with all that stands before it: backbone, projection, prototypes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from collapse_audit.checkpoints.roles import is_patch_level
from collapse_audit.checkpoints.selection import select_default
from collapse_audit.errors import CollapseAuditWarning, ParameterError
from collapse_audit.manifest import CheckpointEntry, load_manifest
from collapse_audit.manifest.recipes import Recipe
from collapse_audit.network.heads import input_width, projection_of
from collapse_audit.network.image_model import ImageModel, build_model
from collapse_audit.network.tensors import backbone_state, centre_of
from collapse_audit.sources import ResolvedSource, resolve_source

if TYPE_CHECKING:
    from torch import Tensor, nn

    from collapse_audit.checkpoints.locations import HeadLocation
    from collapse_audit.containers.tensors import Checkpoint
    from collapse_audit.prototypes import Branch, Prototypes


@dataclass(frozen=True, slots=True, eq=False)
class HeadModel(ImageModel):
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
    def temperature(self) -> float:
        """Softmax temperature of this branch.

        Raises:
            ParameterError: If nothing tells it.
        """
        known = self.recipe.temperature(self.prototypes.branch)
        if known is None:
            raise ParameterError(
                f"{self.prototypes.source}: the softmax temperature of "
                f"{self.family or 'a file laid out like this'} is not known.",
                hint="Give the one it was trained with, as `temperature=T`.",
            )
        return known

    @property
    def assumed(self) -> list[str]:
        """Fields of the recipe that decide how features become logits and that nothing states."""
        layers = sum(1 for name, _ in self.projection.named_parameters() if name.endswith("weight"))
        needed = ["use_norms", "normalize_features"] + ["activation"] * (layers > 1)
        return [name for name in needed if name not in self.recipe.sources]

    @property
    def source(self) -> str:
        """What the user typed."""
        return self.prototypes.source

    @property
    def branch(self) -> Branch | None:
        """Which network."""
        return self.prototypes.branch

    @property
    def width(self) -> int:
        """Width of the features that the head takes."""
        return input_width(self.projection) or self.prototypes.d

    def __repr__(self) -> str:
        backbone = None if self.backbone is None else type(self.backbone).__name__
        return f"HeadModel({self.prototypes!r}, family={self.family!r}, backbone={backbone})"

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
    source: str | Path | ResolvedSource,
    *,
    branch: Branch = "teacher",
    head: str | None = None,
    images: bool = True,
    backbone: str | None = None,
    backbone_arguments: Mapping[str, Any] | None = None,
) -> HeadModel:
    """Rebuild a head, and the backbone if images are to be run through it.

    Args:
        source: As for :func:`~collapse_audit.load_prototypes`, or what ``resolve_source`` gave. The
            facts of a row of the manifest come before those of its family; where its timm model
            does not fit the tensors of the file, the file is right.
        branch: Which network, as for :func:`~collapse_audit.load_prototypes`.
        head: Which head.
        images: Whether the backbone is needed.
        backbone: A timm model to use instead of the recognised one.
        backbone_arguments: Passed to the model, such as ``num_heads``.

    Returns:
        The model, in evaluation mode on the CPU.
    """
    resolved = source if isinstance(source, ResolvedSource) else resolve_source(source)
    location = select_default(resolved.select(branch=branch, head=head), resolved.spec)
    (prototypes,) = resolved.load([location])
    return head_model_of(
        resolved.checkpoint,
        location,
        prototypes,
        family=resolved.family,
        entry=resolved.entry,
        images=images,
        backbone=backbone,
        backbone_arguments=backbone_arguments,
    )


def head_model_of(
    checkpoint: Checkpoint,
    location: HeadLocation,
    prototypes: Prototypes,
    *,
    family: str | None = None,
    entry: CheckpointEntry | None = None,
    images: bool = True,
    backbone: str | None = None,
    backbone_arguments: Mapping[str, Any] | None = None,
) -> HeadModel:
    """Rebuild a head of an open checkpoint, as :func:`load_head_model` does, on the CPU."""
    recipe = entry.recipe if entry else load_manifest().recipe(family)
    options = _training_options(checkpoint)
    recipe = recipe.told_by(
        options,
        source=f"training options in {prototypes.source}",
        patches=is_patch_level(location.name),
    )
    built = None
    state = backbone_state(checkpoint, location) if images else {}
    if (backbone is not None or backbone_arguments) and not (images and (state or backbone)):
        raise ParameterError(
            "there is no backbone to build: the samples are no images, or the file holds none.",
            hint="Leave `backbone=NAME` and its arguments out.",
        )
    if images:
        if state or backbone is not None:
            listed = entry.timm_name if entry else options.get("timm_name")
            built = build_model(state, backbone, backbone_arguments, listed)
        else:
            warnings.warn(
                f"{prototypes.source}: holds no backbone; the pixels themselves stand in for "
                "features.",
                CollapseAuditWarning,
                stacklevel=2,
            )
    return HeadModel(
        prototypes,
        projection_of(checkpoint, location, recipe),
        recipe,
        family,
        centre_of(checkpoint, location),
        built,
    )


def _training_options(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """What the run wrote down: the script's arguments, or our trainer's configuration."""
    if checkpoint.metadata.get("format") != "collapse-audit/head":
        return checkpoint.options
    with suppress(ValueError):
        config = json.loads(checkpoint.metadata.get("config", ""))
        if isinstance(config, dict):
            named = config.get("backbone")
            timm_name = None if named == "small" else named
            centring = config.get("objective") == "dino"
            return {**config, "centring": centring, "timm_name": timm_name}
    return {}

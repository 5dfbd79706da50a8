"""Samples through one head -> MLCD."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, Unpack

import numpy as np
import numpy.typing as npt

from collapse_audit.devices import pick_device
from collapse_audit.errors import (
    CheckpointError,
    CollapseAuditWarning,
    ParameterError,
    SourceError,
)
from collapse_audit.files import refuse_special, write_atomically
from collapse_audit.network.datasets import Samples, choose, open_samples
from collapse_audit.network.extraction import FeatureBatch, Loading, array_batches, image_batches
from collapse_audit.network.head_model import HeadModel, load_head_model
from collapse_audit.network.image_model import BackboneModel, ImageModel
from collapse_audit.network.preprocessing import Preprocessing, preprocessing_for

if TYPE_CHECKING:
    import torch
    from torch import nn

    from collapse_audit.mlcd import MLCD

Centre: TypeAlias = Literal["file", "estimate", "none"]


def measure_mlcd(
    model: HeadModel | str | Path,
    samples: Samples | str | Path,
    *,
    groups: npt.ArrayLike | None = None,
    temperature: float | None = None,
    centre: Centre | None = None,
    prior: Literal["uniform", "power-law"] = "uniform",
    assignment: Literal["softmax", "sinkhorn"] = "softmax",
    preprocessing: Preprocessing | None = None,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    workers: int = 0,
    skip_bad: bool = False,
    dtype: Literal["float32", "float64"] = "float32",
    device: str = "auto",
    progress: Callable[[int], None] | None = None,
) -> MLCD:
    """Run samples through a head and measure its marginal latent class distribution.

    Args:
        model: The head, whose networks are moved to ``device`` and ``dtype``; or its source.
        samples: Images, backbone features, or logits; or what :func:`open_samples` takes.
        groups: Group number of every prototype (k), for the distribution over unique ones.
        temperature: By default that of the teacher (or student) at the end of training; needed
            where neither the file nor the manifest tells it.
        centre: By default the file's for a teacher, else an estimate for the families that
            centre their logits, else none.
        prior: Prior of the divergences.
        assignment: ``"softmax"`` or ``"sinkhorn"``.
        preprocessing: By default the family's, fitted to the backbone's input size.
        limit: Number of samples, chosen at random; all by default.
        seed: Of that choice.
        batch_size: Samples per forward pass.
        workers: Processes that read images.
        skip_bad: Whether to go on where more than 1 % of the images cannot be read.
        dtype: Of the networks and the softmax.
        device: ``"auto"`` (a CUDA device if there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        progress: Called with the number of samples after every batch.

    Returns:
        The MLCD.

    Raises:
        CheckpointError: If the file's centre is asked for and it holds none.
        ParameterError: If a number is out of its range, samples do not fit the head, or there is
            no such device.
        SourceError: If more than 1 % of the images cannot be read.
    """
    import torch  # seconds

    from collapse_audit.mlcd import FeatureAccumulator, MLCDAccumulator  # imports torch

    place = torch.device(pick_device(device))
    samples = samples if isinstance(samples, Samples) else open_samples(samples)
    if not isinstance(model, HeadModel):
        model = load_head_model(model, images=samples.images is not None)
    told: str | None = "option"
    if temperature is None:
        temperature = model.temperature
        told = model.recipe.sources.get(f"{model.prototypes.branch or 'teacher'}_temperature")
    subtracted, centre_source = _centre(model, centre)
    if samples.logits is None and (assumed := model.assumed):
        warnings.warn(
            f"{model.prototypes.source}: nothing tells {', '.join(assumed)} of "
            f"{model.family or 'a file laid out like this'}; DINO's are taken.",
            CollapseAuditWarning,
            stacklevel=2,
        )
    accumulator = MLCDAccumulator(
        model.prototypes,
        temperature=temperature,
        centre=subtracted,
        groups=groups,
        prior=prior,
        assignment=assignment,
        normalize_features=model.recipe.normalize_features,
        use_norms=model.recipe.use_norms,
        vmf=model.recipe.vmf,
        dtype=dtype,
        device=place,
    )
    of_pixels = samples.features is None and model.backbone is None
    spreads = {
        "backbone": FeatureAccumulator(seed=seed),
        "bottleneck": FeatureAccumulator(normalize=model.recipe.normalize_features, seed=seed),
    }
    chosen, places = choose(len(samples), limit=limit, seed=seed), []
    for batch in batches_of(
        model,
        samples,
        chosen,
        preprocessing=preprocessing,
        batch_size=batch_size,
        workers=workers,
        skip_bad=skip_bad,
        dtype=torch.float64 if dtype == "float64" else torch.float32,
        device=place,
    ):
        labels = None if samples.labels is None else samples.labels[batch.index]
        if samples.logits is not None:
            accumulator.update_logits(batch.rows, labels=labels)
        else:
            with torch.inference_mode():
                bottleneck = model.bottleneck_of(batch.rows)
            accumulator.update(bottleneck, labels=labels)
            spreads["bottleneck"].update(bottleneck)
            if bottleneck is not batch.rows and not of_pixels:
                spreads["backbone"].update(batch.rows)
        places.append(batch.index)
        if progress is not None:
            progress(len(batch.index))
    found = accumulator.result()
    index = np.concatenate(places)
    index = index if samples.places is None else samples.places[index]
    return replace(
        found,
        index=index,
        temperature_source=told,
        centre_source=centre_source,
        features={place: spread.result() for place, spread in spreads.items() if spread.n},
    )


def cached_features(
    model: HeadModel | BackboneModel,
    data: str,
    cache: Path,
    *,
    preprocessing: Preprocessing | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Callable[[int], None] | None = None,
    **loading: Unpack[Loading],
) -> Samples:
    """Backbone features in float32: from the file ``cache`` if it exists, else into it."""
    # Features of other weights, data by name, limit, seed or preprocessing are a SourceError.
    import torch
    from safetensors.numpy import save

    chosen = preprocessing or _default_preprocessing(model)
    origin = {
        "source": model.source,
        "branch": str(model.branch),
        "data": data,
        "limit": str(limit),
        "seed": str(seed),
        "preprocessing": repr(chosen),
        "backbone": _fingerprint(model.backbone),
    }
    if cache.suffix != ".safetensors":
        raise ParameterError(f"{cache}: features are kept in a .safetensors file.")
    if cache.exists():
        _check_origin(cache, origin)
        return open_samples(cache)
    samples = open_samples(data)
    index = choose(len(samples), limit=limit, seed=seed)
    rows, places = [], []
    for batch in batches_of(
        model,
        replace(samples, features=None, logits=None),
        index,
        preprocessing=chosen,
        dtype=torch.float32,
        device=torch.device(pick_device(device)),
        **loading,
    ):
        rows.append(batch.rows.cpu().numpy())
        places.append(batch.index)
        if progress is not None:
            progress(len(batch.index))
    arrays = {"features": np.concatenate(rows), "index": np.concatenate(places)}
    if samples.labels is not None:
        arrays["labels"] = samples.labels[arrays["index"]]
    write_atomically(cache, save(arrays, metadata=origin))
    return Samples(features=arrays["features"], labels=arrays.get("labels"), places=arrays["index"])


def _check_origin(path: Path, origin: Mapping[str, str]) -> None:
    """Refuse a file of features that were made of something else."""
    from safetensors import SafetensorError, safe_open

    try:
        refuse_special(path.resolve())
        with safe_open(path, framework="numpy") as file:
            found = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise SourceError(f"{path}: not a readable safetensors file ({error}).") from error
    for name, value in origin.items():
        if found.get(name) != value:
            raise SourceError(
                f"{path}: these features were made with {name} {found.get(name)!r}, not {value!r}.",
                hint="Delete the file, or give another one with `features=FILE`.",
            )


def _fingerprint(backbone: nn.Module | None) -> str:
    """Digest of the weights that make the features: a file may be written anew under its name."""
    import torch

    digest = hashlib.sha256(type(backbone).__name__.encode())
    for name, tensor in backbone.state_dict().items() if backbone is not None else ():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def batches_of(
    model: ImageModel | None,
    samples: Samples,
    index: npt.NDArray[np.intp],
    *,
    preprocessing: Preprocessing | None,
    dtype: torch.dtype,
    device: torch.device,
    **loading: Unpack[Loading],
) -> Iterator[FeatureBatch]:
    """Features of images, or the features or logits that are given; those need no model."""
    batch_size, workers = loading.get("batch_size", 64), loading.get("workers", 0)
    if batch_size < 1 or workers < 0:
        raise ParameterError(
            f"batch_size must be at least 1 and workers at least 0, got {batch_size} and {workers}."
        )
    if model is not None:
        model.to(dtype, device)
    values = samples.features if samples.features is not None else samples.logits
    if values is not None:
        return array_batches(values, index, batch_size=batch_size, dtype=dtype, device=device)
    if model is None:
        raise ParameterError(
            "images need a backbone, and none is given.",
            hint="Give features with `data=FILE.npz`.",
        )
    chosen = preprocessing or _default_preprocessing(model)
    return image_batches(
        model, samples, index, preprocessing=chosen, dtype=dtype, device=device, **loading
    )


def _default_preprocessing(model: ImageModel) -> Preprocessing:
    if model.takes_pixels:  # as they are, from 0 to 1
        return Preprocessing(resize=None, mean=(0.0,) * 3, std=(1.0,) * 3)
    return preprocessing_for(model.recipe.preprocessing).fitted(model.side)


def _centre(
    model: HeadModel, centre: Centre | None
) -> tuple[npt.NDArray[np.float64] | Literal["estimate"] | None, str | None]:
    """What is subtracted, and what told to."""
    told: str | None = "option"
    if centre is None:
        if model.prototypes.branch == "student":
            centre, told = "none", "a student's logits are not centred"
        elif model.centre is not None:
            centre, told = "file", None
        else:
            centre = "estimate" if model.recipe.centring else "none"
            told = model.recipe.sources.get("centring")
    if centre == "file":
        if model.centre is None:
            raise CheckpointError(
                f"{model.prototypes.source}: holds no centre for {model.prototypes.name}.",
                hint="Use `centre=estimate` or `centre=none`.",
            )
        return model.centre, told
    return "estimate" if centre == "estimate" else None, told

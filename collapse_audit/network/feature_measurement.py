"""Samples -> the features of a backbone, or given ones -> FeatureSpread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from collapse_audit.devices import pick_device
from collapse_audit.errors import ParameterError
from collapse_audit.network.datasets import Samples, choose, open_samples
from collapse_audit.network.image_model import BackboneModel
from collapse_audit.network.measurement import batches_of
from collapse_audit.network.preprocessing import Preprocessing

if TYPE_CHECKING:
    from collapse_audit.mlcd import FeatureSpread


def measure_features(
    samples: Samples | str | Path,
    model: BackboneModel | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    workers: int = 0,
    skip_bad: bool = False,
    dtype: Literal["float32", "float64"] = "float32",
    device: str = "auto",
    progress: Callable[[int], None] | None = None,
) -> FeatureSpread:
    """Measure how many directions features fill: of a method without prototypes, there is no more.

    Args:
        samples: Features, or images for the model; or what :func:`open_samples` takes.
        model: What images run through, moved to ``device`` and ``dtype``; not needed for features.
        preprocessing: By default the family's, fitted to the backbone's input size.
        limit: Number of samples, chosen at random; all by default.
        seed: Of that choice, and of the samples for uniformity.
        batch_size: Samples per forward pass.
        workers: Processes that read images.
        skip_bad: Whether to go on where more than 1 % of the images cannot be read.
        dtype: Of the network.
        device: ``"auto"`` (a CUDA device if there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        progress: Called with the number of samples after every batch.

    Returns:
        RankMe, participation ratio and uniformity, of the features as they are.

    Raises:
        ParameterError: If a number is out of its range, or the samples are logits, or images and
            there is no model.
        SourceError: If more than 1 % of the images cannot be read.
    """
    import torch  # seconds

    from collapse_audit.mlcd import FeatureAccumulator  # imports torch

    samples = samples if isinstance(samples, Samples) else open_samples(samples)
    if samples.logits is not None:
        raise ParameterError(
            "logits are those of prototypes: nothing tells the features they came from.",
            hint="Give images, or features with `data=FILE.npz`.",
        )
    accumulator = FeatureAccumulator(seed=seed)
    for batch in batches_of(
        model,
        samples,
        choose(len(samples), limit=limit, seed=seed),
        preprocessing=preprocessing,
        batch_size=batch_size,
        workers=workers,
        skip_bad=skip_bad,
        dtype=torch.float64 if dtype == "float64" else torch.float32,
        device=torch.device(pick_device(device)),
    ):
        accumulator.update(batch.rows)
        if progress is not None:
            progress(len(batch.index))
    return accumulator.result()

"""What a head is worth: uniqueness and class distribution, with the probes beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from collapse_audit.mlcd import MLCDAccumulator
from collapse_audit.prototypes import Prototypes
from collapse_audit.report.columns import text_columns
from collapse_audit.training.data import Data
from collapse_audit.training.heads import Network
from collapse_audit.training.objectives import Objective

# DINO's own evaluation uses 10 and 20 neighbours on ImageNet; 5 suits sets of a thousand images
_NEIGHBOURS = 5
# the linear probe is fitted on the first so many: seconds, where 20 000 take minutes
_LINEAR_SAMPLES = 5000
# samples per forward pass; images of 224 x 224 fit in memory
_CHUNK = 128


@dataclass(frozen=True, slots=True)
class Probes:
    """Accuracy of simple classifiers on frozen features, on held-out samples."""

    knn: float  # cosine nearest neighbours on backbone features
    knn_bottleneck: float  # the same on what the prototypes are compared with
    linear: float  # logistic regression on standardised backbone features


def audit_rows(rows: Tensor, *, full: bool = True) -> dict[str, Any]:
    """Audit prototype rows (k x d); the log of a run does without the sweep that ``full`` adds."""
    from collapse_audit.head_audit import audit_prototypes

    prototypes = Prototypes.from_weight(rows.detach().clone())
    audit = audit_prototypes(prototypes, sweep=full, nearest=False)
    head = audit.head_report()
    return {
        "k": prototypes.k,
        "unique": dict(head["unique"]),
        "unique_fraction": audit.num_unique / prototypes.k,
        "largest_redundancy_factor": int(audit.redundancy_factors.max()),
        "sweep": head["sweep"] if full else [],
        "groups": audit.groups,  # of every prototype (k)
    }


def class_distribution(
    network: Network, data: Data, objective: Objective, groups: npt.NDArray[np.int64]
) -> dict[str, float]:
    """Class distribution of the teacher over the training samples, without augmentation."""
    # Temperature, centre and normaliser are applied as in training. Copies inflate the perplexity
    # over the K prototypes, but neither that over their groups (k) nor the mutual information.
    device, centre = network.prototypes.device, objective.logit_centre
    mlcd = MLCDAccumulator(
        Prototypes.from_weight(network.prototypes, scale=network.head.last_layer.weight_g),
        temperature=objective.teacher_temperature,
        centre=None if centre is None else centre.cpu(),
        groups=groups,
        vmf=objective.config.vmf,
        dtype="float64",
        device=device,
    )
    with _evaluating(network):
        for chunk in torch.split(data.train, _CHUNK):
            mlcd.update_logits(network(chunk.to(device))[2])
    found = mlcd.result()
    return {
        "perplexity": found.k.perplexity,
        "unique_perplexity": math.nan if found.m is None else found.m.perplexity,
        "mutual_information": found.mutual_information,
    }


def probe(network: Network, data: Data) -> Probes | None:
    """Accuracies in [0, 1] on the test samples; ``None`` without labels of two classes for both."""
    if data.train_labels is None or data.test_labels is None or not len(data.test):
        return None
    if len(np.unique(data.train_labels[:_LINEAR_SAMPLES])) < 2:
        return None
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test = _embed(network, data.train), _embed(network, data.test)
    knn = KNeighborsClassifier(n_neighbors=min(_NEIGHBOURS, len(data.train)), metric="cosine")
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    labels, truth = data.train_labels, data.test_labels
    return Probes(
        knn=float(knn.fit(train[0], labels).score(test[0], truth)),
        knn_bottleneck=float(knn.fit(train[1], labels).score(test[1], truth)),
        linear=float(
            linear.fit(train[0][:_LINEAR_SAMPLES], labels[:_LINEAR_SAMPLES]).score(test[0], truth)
        ),
    )


def summarise(network: Network, data: Data, objective: Objective) -> dict[str, Any]:
    """Numbers of one head for the before/after table; the probes are ``None`` without labels."""
    numbers = audit_rows(network.prototypes)
    groups = numbers.pop("groups")
    probes = probe(network, data)
    return (
        numbers
        | class_distribution(network, data, objective, groups)
        | {"probes": None if probes is None else asdict(probes)}
    )


def comparison_table(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Two results of :func:`summarise` side by side, for the terminal: one line per number."""
    rows = []
    for label, keys in _TABLE:
        values = [look_up(summary, keys) for summary in (before, after)]
        if None not in values:
            rows.append((label, *(f"{value:.4g}" for value in values)))
    return "\n".join(text_columns(("", "before", "after"), rows, "< > >"))


_TABLE = (
    ("unique prototypes M (greedy)", ("unique", "greedy")),
    ("  components (lower end)", ("unique", "components")),
    ("  effective, N_eff", ("unique", "n_eff")),
    ("  isolated", ("unique", "isolated")),
    ("M / K", ("unique_fraction",)),
    ("largest redundancy factor", ("largest_redundancy_factor",)),
    ("perplexity over K", ("perplexity",)),
    ("perplexity over unique", ("unique_perplexity",)),
    ("mutual information (nats)", ("mutual_information",)),
    ("kNN accuracy", ("probes", "knn")),
    ("kNN accuracy, bottleneck", ("probes", "knn_bottleneck")),
    ("linear probe accuracy", ("probes", "linear")),
)


def look_up(summary: object, keys: tuple[str, ...]) -> Any:
    """A number inside nested dictionaries; ``None`` if it was not measured."""
    value: Any = summary
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _embed(
    network: Network, samples: Tensor
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    device = network.prototypes.device
    with _evaluating(network):
        parts = [network(chunk.to(device))[:2] for chunk in torch.split(samples, _CHUNK)]
    features, bottleneck = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
    return features, bottleneck


@contextmanager
def _evaluating(network: Network) -> Iterator[None]:
    """No gradients, and batch norm by its running statistics; the mode is restored."""
    mode = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(mode)

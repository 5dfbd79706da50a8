"""What keeps prototypes apart: nothing, a KoLeo term, or an estimate apart from the loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from collapse_audit.koleo import koleo_data_loss, koleo_proto_loss
from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.decoupled import OnlineGaussianMixture
from collapse_audit.training.heads import Network


class Regulariser(nn.Module):
    """No regularisation; the base of the others."""

    def __init__(self, config: HeadTrainingConfig) -> None:
        super().__init__()
        self.weight = config.weight

    def forward(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """The weighted term, from the student's features (views x n x width) and rows (k x d)."""
        del prototypes
        return features.new_zeros(())

    def prepare(self, student: Network, samples: Tensor) -> None:
        """Set up before the first step, with as many training samples as prototypes (k x width)."""

    @torch.no_grad()
    def adapt(self, bottleneck: Tensor, student: Network, teacher: Network, done: float) -> None:
        """Act on the prototypes before a step, outside the loss."""
        # bottleneck of the teacher: views x n x d; done: share of the training that is over, 0 to 1


class KoLeoProto(Regulariser):
    """KoLeo over the prototypes; weight 0.1 suffices to use them all (Govindarajan et al. 2024)."""

    def forward(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """The weighted KoLeo-proto term, in nats."""
        del features
        return self.weight * koleo_proto_loss(prototypes)


class KoLeoData(Regulariser):
    """KoLeo over the student's backbone features, each view on its own (DINOv2)."""

    def forward(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """The weighted KoLeo-data term, in nats."""
        del prototypes
        return self.weight * koleo_data_loss(features)


class KoLeoBoth(Regulariser):
    """KoLeo over the prototypes and over the features, with one weight."""

    def forward(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """The weighted sum of both terms, in nats."""
        return self.weight * (koleo_proto_loss(prototypes) + koleo_data_loss(features))


class Decoupled(Regulariser):
    """Prototypes are the means of a mixture fitted to the teacher; no gradient reaches them."""

    def __init__(self, config: HeadTrainingConfig) -> None:
        super().__init__(config)
        self.mixture = OnlineGaussianMixture(config.k, config.d, forgetting=config.forgetting)
        self.start = config.annealing_start

    @torch.no_grad()
    def prepare(self, student: Network, samples: Tensor) -> None:
        """Start one component at each sample and take the prototypes out of the optimiser."""
        student.prototypes.requires_grad_(False)
        self.mixture.start_at(student.head.bottleneck(student.backbone(samples)))

    @torch.no_grad()
    def adapt(self, bottleneck: Tensor, student: Network, teacher: Network, done: float) -> None:
        """One step of the mixture, whose means become the prototypes of both branches."""
        sharpness = min(1.0, self.start ** (1 - 2 * done))  # geometric, from start to 1 at half
        self.mixture.update(bottleneck.flatten(0, 1), sharpness=sharpness)
        for network in (student, teacher):
            network.prototypes.copy_(self.mixture.means)


_CLASSES: dict[str, type[Regulariser]] = {
    "none": Regulariser,
    "koleo-proto": KoLeoProto,
    "koleo-data": KoLeoData,
    "koleo-both": KoLeoBoth,
    "decoupled": Decoupled,
}


def make_regulariser(config: HeadTrainingConfig) -> Regulariser:
    """The regulariser a configuration asks for, before :meth:`Regulariser.prepare`."""
    return _CLASSES[config.regulariser](config)

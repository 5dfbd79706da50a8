"""What keeps prototypes apart: nothing, a KoLeo term, or an estimate apart from the loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from collapse_audit.koleo import koleo_data_loss, koleo_proto_loss
from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.decoupled import OnlineGaussianMixture
from collapse_audit.training.heads import Network


class Regulariser(nn.Module):
    """No regularisation; the base of the others.

    Attributes:
        weight: Factor of the term in the loss.
    """

    def __init__(self, config: HeadTrainingConfig) -> None:
        super().__init__()
        self.weight = config.weight

    def forward(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """The term to add to the loss, weighted.

        Args:
            features: Backbone features of the student (views x n x width).
            prototypes: Rows of the student (k x d).

        Returns:
            Scalar; zero here.
        """
        del prototypes
        return features.new_zeros(())

    def prepare(self, student: Network, samples: Tensor) -> None:
        """Set up before the first step.

        Args:
            student: Whose prototypes are regularised.
            samples: As many views of training samples as there are prototypes (k x width).
        """

    @torch.no_grad()
    def adapt(self, bottleneck: Tensor, student: Network, teacher: Network, done: float) -> None:
        """Act on the prototypes before a step, outside the loss.

        Args:
            bottleneck: Of the teacher (views x n x d).
            student: May be changed.
            teacher: May be changed.
            done: Share of the training that is over, in [0, 1].
        """


class KoLeoProto(Regulariser):
    """KoLeo over the prototypes; weight 0.1 suffices to use them all (Govindarajan et al. 2024)."""

    def forward(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """The weighted KoLeo-proto term; see :meth:`Regulariser.forward`.

        Args:
            features: Not looked at.
            prototypes: Rows of the student (k x d).

        Returns:
            Scalar in nats.
        """
        del features
        return self.weight * koleo_proto_loss(prototypes)


class KoLeoData(Regulariser):
    """KoLeo over the student's backbone features, each view on its own (DINOv2)."""

    def forward(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """The weighted KoLeo-data term; see :meth:`Regulariser.forward`.

        Args:
            features: Backbone features of the student (views x n x width).
            prototypes: Not looked at.

        Returns:
            Scalar in nats.
        """
        del prototypes
        return self.weight * koleo_data_loss(features)


class KoLeoBoth(Regulariser):
    """KoLeo over the prototypes and over the features, with one weight."""

    def forward(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """The weighted sum of both terms; see :meth:`Regulariser.forward`.

        Args:
            features: Backbone features of the student (views x n x width).
            prototypes: Rows of the student (k x d).

        Returns:
            Scalar in nats.
        """
        return self.weight * (koleo_proto_loss(prototypes) + koleo_data_loss(features))


class Decoupled(Regulariser):
    """Prototypes are the means of a mixture fitted to the teacher; no gradient reaches them."""

    def __init__(self, config: HeadTrainingConfig) -> None:
        super().__init__(config)
        self.mixture = OnlineGaussianMixture(config.k, config.d, forgetting=config.forgetting)
        self.start = config.annealing_start

    @torch.no_grad()
    def prepare(self, student: Network, samples: Tensor) -> None:
        """Start one component at each sample and take the prototypes out of the optimiser.

        Args:
            student: Whose prototypes the mixture estimates from now on.
            samples: Distinct views of training samples (k x width).
        """
        student.prototypes.requires_grad_(False)
        self.mixture.start_at(student.head.bottleneck(student.backbone(samples)))

    @torch.no_grad()
    def adapt(self, bottleneck: Tensor, student: Network, teacher: Network, done: float) -> None:
        """One step of the mixture, whose means become the prototypes of both branches.

        Args:
            bottleneck: Of the teacher (views x n x d).
            student: Its prototypes are set.
            teacher: Its prototypes are set.
            done: Share of the training that is over; annealing ends at one half.
        """
        sharpness = min(1.0, self.start ** (1 - 2 * done))  # geometric, from start to 1
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
    """The regulariser a configuration asks for.

    Args:
        config: Names it and holds its settings.

    Returns:
        The regulariser, before :meth:`Regulariser.prepare`.
    """
    return _CLASSES[config.regulariser](config)

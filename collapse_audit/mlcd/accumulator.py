"""MLCDAccumulator: features or logits, batch by batch -> MLCD."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from collapse_audit.errors import ParameterError
from collapse_audit.mlcd.result import MLCD, CentreSource, Shares
from collapse_audit.mlcd.sinkhorn import sinkhorn_offsets
from collapse_audit.mlcd.softmax import Batch, Scorer, SoftmaxPass, Sums
from collapse_audit.mlcd.statistics import Counts, Prior, prior_masses
from collapse_audit.mlcd.vmf import vmf_log_normaliser
from collapse_audit.prototypes import Prototypes, as_prototypes

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor

Rows: TypeAlias = "npt.ArrayLike | Tensor"
Assignment: TypeAlias = Literal["softmax", "sinkhorn"]

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class MLCDAccumulator:
    r"""Marginal latent class distribution of a head over a stream of samples.

    .. math:: p(k|x) = \mathrm{softmax}_k \frac{g_k \langle x, u_k \rangle + b_k - c_k}{\tau},
              \qquad p_k = \frac1N \sum_x p(k|x)

    with u the unit prototypes, g their norms, c the centre. Sums are float64, each product with
    the prototypes is computed once, and about ``tile`` logits are held at once, never n x k.
    A plain softmax without an estimated centre keeps 12 bytes per sample, and 20 more with groups;
    an estimated centre and Sinkhorn need all samples first and keep what they are given.

    The toy of Govindarajan et al. (2024): four prototypes, four kinds of images. If the four are
    unique, each kind has a class of its own. If they are two pairs of copies, the distribution
    over the four is still uniform, and only the mutual information tells:

        >>> from collapse_audit import Prototypes
        >>> features = np.repeat(np.eye(4), 25, axis=0)
        >>> unique = Prototypes.from_weight(np.eye(4))
        >>> a = MLCDAccumulator(unique, temperature=0.01).update(features).result()
        >>> paired = Prototypes.from_weight(np.array([[1.0, 1, 0, 0]] * 2 + [[0, 0, 1.0, 1]] * 2))
        >>> b = MLCDAccumulator(paired, temperature=0.01, groups=[0, 0, 1, 1])
        >>> b = b.update(features).result()
        >>> a.probabilities.round(3).tolist(), b.probabilities.round(3).tolist()
        ([0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25])
        >>> round(a.mutual_information, 4), round(b.mutual_information, 4)  # log 4, log 2
        (1.3863, 0.6931)
        >>> round(b.k.perplexity, 2), round(b.m.perplexity, 2)
        (4.0, 2.0)

    Args:
        prototypes: The K prototypes, or their matrix (k x d).
        temperature: Softmax temperature (Sinkhorn's epsilon); 0.04 to 0.07 for a DINO teacher,
            0.1 for students, 0.05 for Sinkhorn in SwAV.
        centre: Subtracted from the logits before the temperature: k values; ``"estimate"`` for
            the mean logit of the samples given; ``None`` for no centre. The mean is what DINO's
            moving average estimates. It is exact for the network as it is: a logit is linear in
            the feature, so the mean logit is the logit of the mean feature.
        groups: Group number of every prototype (k), such as ``CollapseAudit.groups``.
        prior: Prior of the divergences.
        assignment: ``"softmax"``, or ``"sinkhorn"`` over all samples given together.
        sinkhorn_iterations: 3 in SwAV and DINOv2; a few hundred converge.
        normalize_features: Scale features to unit norm first, as every family does but CARP and
            Franca.
        use_norms: Multiply cosines by the norms of the prototypes (DINO's g); ``False`` for MSN,
            which compares by cosine.
        vmf: Add the log normaliser of the von Mises-Fisher density to the logits over the
            temperature, as DINO-vMF does, with concentration norm over temperature. It is
            exact to 5e-5 nats from d = 16 on, to 6e-4 at 8 and to 0.1 at 3, the fewest allowed.
        tile: Numbers held at once; changes memory and speed, not the result.
        dtype: ``"float32"`` or ``"float64"`` for logits and exponentials.
        device: Torch device.

    A wrong shape, a value that is not finite, an argument out of its range: ParameterError.
    """

    def __init__(
        self,
        prototypes: Prototypes | Rows,
        *,
        temperature: float,
        centre: Literal["estimate"] | npt.ArrayLike | None = None,
        groups: npt.ArrayLike | None = None,
        prior: Prior = "uniform",
        assignment: Assignment = "softmax",
        sinkhorn_iterations: int = 3,
        normalize_features: bool = True,
        use_norms: bool = True,
        vmf: bool = False,
        tile: int = 1 << 24,
        dtype: Literal["float32", "float64"] = "float32",
        device: str | torch.device = "cpu",
    ) -> None:
        _check_options(temperature, assignment, dtype, prior, min(sinkhorn_iterations, tile))
        prototypes = as_prototypes(prototypes)
        if vmf and prototypes.d < 3:
            raise ParameterError(f"vmf needs d of at least 3, got {prototypes.d}.")
        self._prototypes = prototypes
        self._temperature = float(temperature)
        self._groups = _check_groups(groups, prototypes.k)
        self._prior: Prior = prior
        self._assignment: Assignment = assignment
        self._iterations = sinkhorn_iterations
        self._vmf = vmf
        self._tile = tile
        self._scorer = Scorer(
            prototypes,
            temperature=self._temperature,
            normalize_features=normalize_features,
            use_norms=use_norms,
            dtype=_DTYPES[dtype],
            device=torch.device(device),
        )
        self._estimate = isinstance(centre, str)
        self._centre = _check_centre(centre, prototypes.k)
        self._waiting: list[Batch] = []  # samples that need all others before they can be used
        self._sums = Sums.zeros(prototypes.k, self._scorer.device)
        self._labels: list[Counts] = []
        self._streaming = assignment == "softmax" and not self._estimate
        self._pass = self._softmax_pass(self._offset()) if self._streaming else None

    def update(self, x: Rows, *, labels: npt.ArrayLike | None = None) -> Self:
        """Add samples by their bottleneck features.

        Args:
            x: Features just before the prototypes (n x d), numpy or torch.
            labels: Integer label of every sample (n); for all batches or none.

        Returns:
            The accumulator.
        """
        return self._add(self._scorer.batch(x, is_logits=False), labels)

    def update_logits(self, logits: Rows, *, labels: npt.ArrayLike | None = None) -> Self:
        """Add samples by their logits, before centre and temperature.

        Args:
            logits: One row per sample (n x k), numpy or torch.
            labels: Integer label of every sample (n); for all batches or none.

        Returns:
            The accumulator.
        """
        return self._add(self._scorer.batch(logits, is_logits=True), labels)

    def merge(self, other: MLCDAccumulator) -> Self:
        """Add the samples of another accumulator, which stays as it is.

        Args:
            other: One of the same prototypes and settings.

        Returns:
            The accumulator.

        Raises:
            ParameterError: If the two measure different things, or only one has labels.
        """
        if not self._same_measurement(other):
            raise ParameterError(
                "only accumulators of the same prototypes and settings can be merged.",
                hint="Give both the same prototypes, temperature, centre, assignment and flags.",
            )
        if self.n and other.n and bool(self._labels) != bool(other._labels):
            raise ParameterError("labels were given for some samples only: give all or none.")
        self._sums.add(other._sums)
        device = self._scorer.device
        self._waiting += [Batch(b.rows.to(device), b.is_logits) for b in other._waiting]
        self._labels += other._labels
        return self

    @property
    def n(self) -> int:
        """Number of samples so far."""
        return self._sums.n + sum(len(batch.rows) for batch in self._waiting)

    def result(self) -> MLCD:
        """Distribution over the samples so far (none: ParameterError); more can be added later."""
        if self.n < 1:
            raise ParameterError("no samples: call update with at least one row first.")
        sums = self._sums if self._streaming else self._sums_of_waiting()
        if not math.isfinite(sums.entropy):
            raise ParameterError(
                "the logits over the temperature leave the range of their type.",
                hint="Use dtype float64, or look at the norms of the prototypes.",
            )
        n, grouped = sums.n, self._groups is not None
        p = (sums.p / n).cpu().numpy()
        variances = (sums.p_squared / n).cpu().numpy() - p**2
        mean_entropy = max(0.0, sums.entropy / n)
        spread = max(0.0, sums.entropy_squared / n - mean_entropy**2)
        source: CentreSource = "estimated" if self._estimate else "file"
        return MLCD(
            n=n,
            probabilities=p / p.sum(),
            winners=torch.cat(sums.winners).numpy(),
            winner_probabilities=_shares(sums.winner_probabilities),
            groups=self._groups,
            unique_winners=torch.cat(sums.unique_winners).numpy() if grouped else None,
            unique_winner_probabilities=(
                _shares(sums.unique_winner_probabilities) if grouped else None
            ),
            copy_winners=torch.cat(sums.copy_winners).numpy() if grouped else None,
            mean_entropy=mean_entropy,
            mean_entropy_error=math.sqrt(spread / (n - 1)) if n > 1 else math.nan,
            mean_max_probability=sums.max_probability / n,
            probability_variances=np.maximum(variances, 0.0) * (n / max(n - 1, 1)),
            temperature=self._temperature,
            centre=source if self._estimate or self._centre is not None else "none",
            vmf=self._vmf,
            branch=self._prototypes.branch,
            prior=self._prior,
            assignment=self._assignment,
            labels=np.concatenate(self._labels) if self._labels else None,
        )

    def _add(self, batch: Batch, labels: npt.ArrayLike | None) -> Self:
        rows = len(batch.rows)
        if self.n and rows and (labels is not None) != bool(self._labels):
            raise ParameterError("labels were given for some samples only: give all or none.")
        if labels is not None:
            array = np.asarray(labels)
            if array.shape != (rows,) or array.dtype.kind not in "iu":
                raise ParameterError(
                    f"labels must be {rows} integers, got {array.dtype} of shape {array.shape}."
                )
            if rows:
                self._labels.append(array.astype(np.int64))
        if self._pass is not None:
            self._pass.add(batch, self._sums)
        else:
            # a copy: the caller may fill the same buffer again
            self._waiting.append(Batch(batch.rows.clone(), batch.is_logits))
        return self

    def _sums_of_waiting(self) -> Sums:
        """Second pass, for what can only be computed once all samples are known."""
        offset = self._offset()
        if self._assignment == "sinkhorn":
            offset = sinkhorn_offsets(
                self._scorer,
                self._waiting,
                extra=offset,
                iterations=self._iterations,
                tile=self._tile,
            )
        softmax = self._softmax_pass(offset)
        sums = Sums.zeros(self._scorer.k, self._scorer.device)
        for batch in self._waiting:
            softmax.add(batch, sums)
        return sums

    def _offset(self) -> Tensor:
        """What is added to every scaled logit: minus the centre, and the normaliser."""
        scorer = self._scorer
        offset = torch.zeros(scorer.k, dtype=torch.float64, device=scorer.device)
        if self._centre is not None:
            offset -= torch.from_numpy(self._centre / self._temperature).to(scorer.device)
        if self._estimate:  # the mean scaled logit, from the mean feature: logits are linear in it
            for batch in self._waiting:
                mass = batch.rows.sum(dim=0, dtype=torch.float64) / self.n
                if batch.is_logits:
                    offset -= mass / self._temperature
                else:
                    offset -= scorer.weight.double() @ mass
                    offset -= scorer.bias * (len(batch.rows) / self.n)
        if self._vmf:
            concentrations = torch.from_numpy(scorer.scale).to(scorer.device)
            offset += vmf_log_normaliser(concentrations, scorer.d)
        return offset

    def _softmax_pass(self, extra: Tensor) -> SoftmaxPass:
        groups = self._groups
        numbers = None if groups is None else torch.from_numpy(groups).to(self._scorer.device)
        return SoftmaxPass(self._scorer, extra=extra, tile=self._tile, groups=numbers)

    def _same_measurement(self, other: MLCDAccumulator) -> bool:
        ours, theirs = self._settings(), other._settings()
        return ours.keys() == theirs.keys() and all(
            np.shape(ours[key]) == np.shape(theirs[key]) and bool(np.all(ours[key] == theirs[key]))
            for key in ours
        )

    def _settings(self) -> dict[str, Any]:
        """All that decides what the sums mean; prior and tile do not."""
        return {
            "rows": self._prototypes.rows,
            "temperature": self._temperature,
            "scale": self._scorer.scale,
            "bias": self._scorer.bias.cpu().numpy(),
            "groups": self._groups,
            "centre": self._centre,
            "estimate": self._estimate,
            "assignment": (self._assignment, self._iterations),
            "normalize": (self._scorer.normalize, self._vmf),
        }


def _shares(parts: list[Tensor]) -> Shares:
    """Probabilities of all batches; rounding must not bring them above 1."""
    found: Shares = torch.cat(parts).clamp(max=1.0).numpy()
    return found


def _check_options(
    temperature: float, assignment: str, dtype: str, prior: str, smallest: int
) -> None:
    """Refuse options outside their range; ``smallest`` of the counts must be positive."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise ParameterError(f"temperature must be a positive number, got {temperature}.")
    if assignment not in ("softmax", "sinkhorn"):
        raise ParameterError(f"assignment must be 'softmax' or 'sinkhorn', got {assignment!r}.")
    if dtype not in _DTYPES:
        raise ParameterError(f"dtype must be 'float32' or 'float64', got {dtype!r}.")
    if smallest < 1:
        raise ParameterError(f"sinkhorn_iterations and tile must be at least 1, got {smallest}.")
    prior_masses(prior, 2)


def _check_groups(groups: npt.ArrayLike | None, k: int) -> Counts | None:
    """Group numbers of k prototypes, without gaps."""
    if groups is None:
        return None
    array = np.asarray(groups)
    if array.shape != (k,) or array.dtype.kind not in "iu":
        raise ParameterError(
            f"groups must be {k} integers, got {array.dtype} of shape {array.shape}."
        )
    if array.min() < 0 or (np.bincount(array) == 0).any():
        raise ParameterError("groups must be numbered 0 to m - 1 without gaps.")
    return array.astype(np.int64)


def _check_centre(centre: npt.ArrayLike | None, k: int) -> npt.NDArray[np.float64] | None:
    """One finite number per prototype; ``None`` if there is none yet or at all."""
    if isinstance(centre, str) and centre != "estimate":
        raise ParameterError(f"centre must be 'estimate', an array or None, got {centre!r}.")
    if centre is None or isinstance(centre, str):
        return None
    array = np.asarray(centre, dtype=np.float64).reshape(-1)
    if array.shape != (k,) or not np.isfinite(array).all():
        raise ParameterError(
            f"the centre must be {k} finite numbers, one per prototype, got {array.size}.",
            hint="Use `centre=estimate` if the file holds none.",
        )
    return array

"""The documents that ``--format json`` prints, as types.

A key that is ``NotRequired`` may be missing from a report that an earlier version wrote.
"""

from __future__ import annotations

from typing import Final, Literal, NotRequired, TypeAlias, TypedDict

from collapse_audit.report.usage_documents import SummaryDocument, UsageDocument
from collapse_audit.version import __version__

SCHEMA_VERSION: Final = "1.1"
REPORT_SCHEMA: Final = "collapse-audit/report"
ERROR_SCHEMA: Final = "collapse-audit/error"
VERDICT_SCHEMA: Final = "collapse-audit/verdict"
COMPARISON_SCHEMA: Final = "collapse-audit/comparison"
FEATURES_SCHEMA: Final = "collapse-audit/features"
HISTORY_SCHEMA: Final = "collapse-audit/history"
INFO_SCHEMA: Final = "collapse-audit/info"

_Branch: TypeAlias = Literal["teacher", "student"] | None
_Number: TypeAlias = int | float
#: Numbers by name; the JSON Schema lists the names.
_Numbers: TypeAlias = dict[str, float]


class _Tool(TypedDict):
    name: str
    version: str


TOOL: Final[_Tool] = {"name": "collapse-audit", "version": __version__}


class Document(TypedDict):
    """What every document begins with."""

    schema: str
    schema_version: str
    tool: _Tool


class SourceDocument(TypedDict):
    """What was audited: as typed, and what is known of it."""

    spec: str
    id: str | None
    family: str | None
    sha256: str | None


class Parameters(TypedDict):
    """How the counts were made."""

    epsilon: float | None  # None in the Euclidean metric
    rule: str
    certified: bool
    metric: NotRequired[Literal["cosine", "euclidean"]]
    radius: NotRequired[float | None]  # None too where heads have radii of their own


class NEffDocument(TypedDict):
    """Effective number of prototypes; an interval where it was estimated from a sample."""

    n_eff: NotRequired[float]
    n_eff_interval: NotRequired[list[float] | None]


class Counts(NEffDocument):
    """Unique prototypes by each rule."""

    greedy: int
    components: int
    isolated: int


class Level(Counts):
    """Counts at one threshold, which is an epsilon or a radius."""

    epsilon: NotRequired[float]
    radius: NotRequired[float]


class _Unique(Counts):
    bracket: NotRequired[list[int]]
    order_range: NotRequired[list[int] | None]
    definition_independent: NotRequired[bool]


class _Factors(TypedDict):
    max: int
    mean: float
    gini: float
    effective_number: float
    top: list[int]
    histogram: list[list[int]]


class _Live(TypedDict):
    k: int
    unique: int
    unique_fraction: float


class DeadDocument(TypedDict):
    """Rows below a gap in the norms, and the counts of the others alone."""

    count: int
    largest_norm: float
    smallest_live_norm: float
    live: _Live


class NullDocument(TypedDict):
    """What as many random directions would give."""

    probability: float
    expected_pairs: float
    nearest_cosine: NotRequired[_Numbers | None]


class CountDocument(TypedDict):
    """A count that a paper reports."""

    unique: int
    source: str | None


class PublishedDocument(CountDocument):
    """The count to compare with first, and the others."""

    others: NotRequired[list[CountDocument]]


class _Agreement(TypedDict):
    mutual_information: float
    merged: int


class LabelsDocument(TypedDict):
    """Latent classes against labels."""

    number: int
    k: _Agreement
    m: NotRequired[_Agreement]


#: How many directions features fill, by name; None where a number is undefined.
FeaturesDocument: TypeAlias = dict[str, float | None]


class MLCDDocument(TypedDict):
    """A marginal latent class distribution, over prototypes (k) and unique ones (m)."""

    n: int
    branch: _Branch
    temperature: float
    centre: Literal["file", "estimated", "none"]
    mean_entropy: float
    mutual_information: float
    k: dict[str, float | None]  # None where it is infinite
    m: dict[str, float | None] | None
    usage: dict[Literal["k", "m"], _Numbers]
    prior: str
    assignment: str
    mutual_information_corrected: float
    mean_entropy_error: NotRequired[float | None]
    mean_max_probability: float
    kl_to_redundancy: NotRequired[float | None]
    hidden_divergence: NotRequired[float | None]
    labels: NotRequired[LabelsDocument | None]
    temperature_source: NotRequired[str | None]
    centre_source: NotRequired[str | None]
    vmf: NotRequired[bool]
    diversity: NotRequired[_Numbers | None]
    features: NotRequired[dict[str, FeaturesDocument]]  # by place: "backbone", "bottleneck"


class HeadDocument(TypedDict):
    """One head of a report."""

    name: str
    branch: _Branch
    tensor_keys: list[str]
    tensor_sha256: NotRequired[dict[str, str]]
    notes: NotRequired[list[str]]
    k: int
    d: int
    dtype: str
    unique: _Unique
    unique_fraction: float
    redundancy_factors: _Factors
    sweep: list[Level]
    nearest_cosine: _Numbers | None
    nearest_distance: NotRequired[_Numbers | None]  # of the Euclidean metric, as is the radius
    radius: NotRequired[float]
    dead: NotRequired[DeadDocument | None]
    norms: NotRequired[_Numbers | None]
    stored_usage: NotRequired[UsageDocument | None]
    exact_duplicates: NotRequired[int | None]
    mean_direction_norm: NotRequired[float]
    null: NotRequired[NullDocument | None]
    published: PublishedDocument | None
    mlcd: MLCDDocument | None


class ReportDocument(Document):
    """All audited heads of one source."""

    source: SourceDocument
    parameters: Parameters
    heads: list[HeadDocument]
    summary: NotRequired[SummaryDocument]


class FeaturesReport(Document):
    """The features of a source without prototypes, by place, and why there is nothing else."""

    source: SourceDocument
    note: str
    features: dict[str, FeaturesDocument]


class _Problem(TypedDict):
    type: str
    message: str
    hint: str


class ErrorDocument(TypedDict):
    """What stands in for a report where there is none."""

    schema: str
    error: _Problem


class CheckDocument(TypedDict):
    """One threshold on one head."""

    head: str
    branch: str | None
    threshold: str
    metric: str
    value: _Number
    baseline: _Number | None
    limit: str
    status: Literal["passed", "failed", "accepted", "skipped"]


class VerdictDocument(Document):
    """All thresholds on all heads."""

    source: str
    baseline: str | None
    passed: bool
    checks: list[CheckDocument]


class _Parts(TypedDict):
    group: int
    parts: list[int]


class RegroupingDocument(TypedDict):
    """What became of the groups of one head in another."""

    unchanged: int
    split: int
    merged: int
    pairs: dict[str, int]
    splits: list[_Parts]
    merges: list[_Parts]


class MetricDocument(TypedDict):
    """One metric of every source, and how it changed from the first."""

    metric: str
    values: list[_Number | None]
    deltas: list[_Number | None]
    judgements: list[Literal["better", "worse", "same", "changed"] | None]


class MatchingDocument(TypedDict):
    """How the prototypes of A match those of another head; pairs of numbers are for A and it."""

    k: list[int]
    mean_max_cosine: list[float]
    random_max_cosine: list[float]
    pw_mcc: float | None
    pair_cosine: _Numbers | None


class ComparedHead(TypedDict):
    """One head in all sources."""

    name: str
    branch: str | None
    partners: list[str]
    metrics: list[MetricDocument]
    regroupings: list[RegroupingDocument | None]
    matchings: NotRequired[list[MatchingDocument]]


class ComparisonDocument(Document):
    """Heads side by side."""

    sources: list[str]
    heads: list[ComparedHead]
    among: NotRequired[Literal["all", "unique"]]


class PointDocument(TypedDict):
    """One head at one checkpoint of a run."""

    file: str
    label: str
    number: int | None
    unit: str
    head: HeadDocument


class MergeDocument(TypedDict):
    """Prototypes of several groups that came into one; of both lists the first 20."""

    size: int
    groups: int
    parts: list[int]
    prototypes: list[int]


class MergesDocument(TypedDict):
    """What merged between two checkpoints; of the merges the 20 largest."""

    before: str
    after: str
    merges: int
    prototypes: int
    largest: list[MergeDocument]


class HeadHistoryDocument(TypedDict):
    """One head of a run; the onset is the name of a file."""

    name: str
    branch: str | None
    onset: str | None
    points: list[PointDocument]
    merges: list[MergesDocument]
    notes: list[str]


class FileProblem(_Problem):
    """A checkpoint that was skipped, and why."""

    file: str


class HistoryDocument(Document):
    """A run, checkpoint by checkpoint."""

    source: str
    parameters: Parameters
    onset_share: float
    checkpoints: int
    heads: list[HeadHistoryDocument]
    problems: list[FileProblem]

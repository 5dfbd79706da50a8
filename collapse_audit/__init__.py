"""Diagnose prototype collapse: checkpoint -> Prototypes -> CollapseAudit, and images -> MLCD."""

from importlib import import_module
from typing import TYPE_CHECKING

from collapse_audit.version import __version__

if TYPE_CHECKING:
    from collapse_audit.auditing import audit, audit_source
    from collapse_audit.clusters import ClusterEstimate, estimate_clusters
    from collapse_audit.errors import (
        CheckpointError,
        CollapseAuditError,
        CollapseAuditWarning,
        ManifestError,
        NoPrototypesError,
        ParameterError,
        PrototypeError,
        ReportError,
        SourceError,
        UnsafePickleError,
    )
    from collapse_audit.examples import embedded_head
    from collapse_audit.gallery import Gallery
    from collapse_audit.gate import HeadsSideBySide, Verdict, check, compare
    from collapse_audit.head_audit import CollapseAudit, Published, Source, audit_prototypes
    from collapse_audit.history import RunHistory, audit_history
    from collapse_audit.koleo import koleo_data_loss, koleo_proto_loss
    from collapse_audit.matching import Matching, match_prototypes
    from collapse_audit.mlcd import MLCD, FeatureAccumulator, FeatureSpread, MLCDAccumulator
    from collapse_audit.monitor import Observation, PrototypeMonitor
    from collapse_audit.network import (
        BackboneModel,
        HeadModel,
        load_backbone,
        load_head_model,
        measure_features,
        measure_mlcd,
        open_samples,
    )
    from collapse_audit.plots.embedding import plot_class_map, plot_prototype_map
    from collapse_audit.plots.history import plot_history
    from collapse_audit.plots.mlcd import plot_rank_frequency, plot_redundancy_vs_mass, plot_usage
    from collapse_audit.plots.nearest import plot_nearest
    from collapse_audit.plots.redundancy import (
        plot_largest_groups,
        plot_redundancy_factors,
        plot_redundancy_histogram,
    )
    from collapse_audit.plots.side_by_side import plot_side_by_side
    from collapse_audit.plots.sweep import plot_sweep, plot_unique_vs_k
    from collapse_audit.prototypes import Prototypes
    from collapse_audit.redundancy import (
        Diversity,
        Redundancy,
        measure_diversity,
        measure_redundancy,
    )
    from collapse_audit.sources import load_heads, load_prototypes
    from collapse_audit.training.config import HeadTrainingConfig
    from collapse_audit.training.run import run_training

__all__ = [
    "MLCD",
    "BackboneModel",
    "CheckpointError",
    "ClusterEstimate",
    "CollapseAudit",
    "CollapseAuditError",
    "CollapseAuditWarning",
    "Diversity",
    "FeatureAccumulator",
    "FeatureSpread",
    "Gallery",
    "HeadModel",
    "HeadTrainingConfig",
    "HeadsSideBySide",
    "MLCDAccumulator",
    "ManifestError",
    "Matching",
    "NoPrototypesError",
    "Observation",
    "ParameterError",
    "PrototypeError",
    "PrototypeMonitor",
    "Prototypes",
    "Published",
    "Redundancy",
    "ReportError",
    "RunHistory",
    "Source",
    "SourceError",
    "UnsafePickleError",
    "Verdict",
    "__version__",
    "audit",
    "audit_history",
    "audit_prototypes",
    "audit_source",
    "check",
    "compare",
    "embedded_head",
    "estimate_clusters",
    "koleo_data_loss",
    "koleo_proto_loss",
    "load_backbone",
    "load_head_model",
    "load_heads",
    "load_prototypes",
    "match_prototypes",
    "measure_diversity",
    "measure_features",
    "measure_mlcd",
    "measure_redundancy",
    "open_samples",
    "plot_class_map",
    "plot_history",
    "plot_largest_groups",
    "plot_nearest",
    "plot_prototype_map",
    "plot_rank_frequency",
    "plot_redundancy_factors",
    "plot_redundancy_histogram",
    "plot_redundancy_vs_mass",
    "plot_side_by_side",
    "plot_sweep",
    "plot_unique_vs_k",
    "plot_usage",
    "run_training",
]

# Where each public name lives; importing the package itself costs nothing.
_NAMES = {
    "auditing": "audit audit_source",
    "clusters": "ClusterEstimate estimate_clusters",
    "errors": "CheckpointError CollapseAuditError CollapseAuditWarning ManifestError "
    "NoPrototypesError ParameterError PrototypeError ReportError SourceError UnsafePickleError",
    "examples": "embedded_head",
    "gallery": "Gallery",
    "gate": "HeadsSideBySide Verdict check compare",
    "head_audit": "CollapseAudit Published Source audit_prototypes",
    "history": "RunHistory audit_history",
    "koleo": "koleo_data_loss koleo_proto_loss",
    "matching": "Matching match_prototypes",
    "mlcd": "MLCD FeatureAccumulator FeatureSpread MLCDAccumulator",
    "monitor": "Observation PrototypeMonitor",
    "network": "BackboneModel HeadModel load_backbone load_head_model measure_features "
    "measure_mlcd open_samples",
    "plots.embedding": "plot_class_map plot_prototype_map",
    "plots.history": "plot_history",
    "plots.mlcd": "plot_rank_frequency plot_redundancy_vs_mass plot_usage",
    "plots.nearest": "plot_nearest",
    "plots.redundancy": "plot_largest_groups plot_redundancy_factors plot_redundancy_histogram",
    "plots.side_by_side": "plot_side_by_side",
    "plots.sweep": "plot_sweep plot_unique_vs_k",
    "prototypes": "Prototypes",
    "redundancy": "Diversity Redundancy measure_diversity measure_redundancy",
    "sources": "load_heads load_prototypes",
    "training.config": "HeadTrainingConfig",
    "training.run": "run_training",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'collapse_audit' has no attribute {name!r}")
    return getattr(import_module(f"collapse_audit.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)

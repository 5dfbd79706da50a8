"""Diagnose prototype collapse: checkpoint -> Prototypes -> CollapseAudit, and images -> MLCD."""

from importlib import import_module
from typing import TYPE_CHECKING

from collapse_audit.version import __version__

if TYPE_CHECKING:
    from collapse_audit.audit import CollapseAudit, Published, Source, audit_prototypes
    from collapse_audit.auditing import audit_source
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
    from collapse_audit.gate import Verdict, check, compare
    from collapse_audit.koleo import koleo_data_loss, koleo_proto_loss
    from collapse_audit.mlcd import MLCD, MLCDAccumulator
    from collapse_audit.monitor import PrototypeMonitor
    from collapse_audit.network import HeadModel, load_head_model, measure_mlcd, open_samples
    from collapse_audit.plots import (
        plot_rank_frequency,
        plot_redundancy_factors,
        plot_redundancy_vs_mass,
        plot_sweep,
        plot_usage,
    )
    from collapse_audit.prototypes import Prototypes
    from collapse_audit.redundancy import Redundancy, measure_redundancy
    from collapse_audit.sources import load_heads, load_prototypes
    from collapse_audit.training.config import HeadTrainingConfig
    from collapse_audit.training.run import run_training

# Where each public name lives; importing the package itself costs nothing.
_HOME = {
    "MLCD": "mlcd",
    "CheckpointError": "errors",
    "CollapseAudit": "audit",
    "CollapseAuditError": "errors",
    "CollapseAuditWarning": "errors",
    "HeadTrainingConfig": "training.config",
    "HeadModel": "network",
    "MLCDAccumulator": "mlcd",
    "ManifestError": "errors",
    "NoPrototypesError": "errors",
    "ParameterError": "errors",
    "PrototypeError": "errors",
    "PrototypeMonitor": "monitor",
    "Prototypes": "prototypes",
    "Published": "audit",
    "Redundancy": "redundancy",
    "ReportError": "errors",
    "Source": "audit",
    "SourceError": "errors",
    "UnsafePickleError": "errors",
    "Verdict": "gate",
    "audit_prototypes": "audit",
    "audit_source": "auditing",
    "embedded_head": "examples",
    "load_head_model": "network",
    "load_heads": "sources",
    "load_prototypes": "sources",
    "measure_mlcd": "network",
    "koleo_data_loss": "koleo",
    "koleo_proto_loss": "koleo",
    "check": "gate",
    "compare": "gate",
    "measure_redundancy": "redundancy",
    "open_samples": "network",
    "plot_rank_frequency": "plots",
    "plot_redundancy_factors": "plots",
    "plot_redundancy_vs_mass": "plots",
    "plot_sweep": "plots",
    "plot_usage": "plots",
    "run_training": "training.run",
}

__all__ = [
    "MLCD",
    "CheckpointError",
    "CollapseAudit",
    "CollapseAuditError",
    "CollapseAuditWarning",
    "HeadModel",
    "HeadTrainingConfig",
    "MLCDAccumulator",
    "ManifestError",
    "NoPrototypesError",
    "ParameterError",
    "PrototypeError",
    "PrototypeMonitor",
    "Prototypes",
    "Published",
    "Redundancy",
    "ReportError",
    "Source",
    "SourceError",
    "UnsafePickleError",
    "Verdict",
    "__version__",
    "audit_prototypes",
    "audit_source",
    "check",
    "compare",
    "embedded_head",
    "koleo_data_loss",
    "koleo_proto_loss",
    "load_head_model",
    "load_heads",
    "load_prototypes",
    "measure_mlcd",
    "measure_redundancy",
    "open_samples",
    "plot_rank_frequency",
    "plot_redundancy_factors",
    "plot_redundancy_vs_mass",
    "plot_sweep",
    "plot_usage",
    "run_training",
]


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'collapse_audit' has no attribute {name!r}")
    return getattr(import_module(f"collapse_audit.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)

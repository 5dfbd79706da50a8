"""Diagnose prototype collapse: manifest -> bytes -> Prototypes -> similarity -> CollapseAudit."""

from importlib import import_module
from typing import TYPE_CHECKING

from collapse_audit.version import __version__

if TYPE_CHECKING:
    from collapse_audit.audit import CollapseAudit, Published, Source, audit_prototypes
    from collapse_audit.checkpoints import load_heads, load_prototypes
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
    from collapse_audit.prototypes import Prototypes
    from collapse_audit.redundancy import Redundancy, measure_redundancy

# Where each public name lives; importing the package itself costs nothing.
_HOME = {
    "CheckpointError": "errors",
    "CollapseAudit": "audit",
    "CollapseAuditError": "errors",
    "CollapseAuditWarning": "errors",
    "ManifestError": "errors",
    "NoPrototypesError": "errors",
    "ParameterError": "errors",
    "PrototypeError": "errors",
    "Prototypes": "prototypes",
    "Published": "audit",
    "Redundancy": "redundancy",
    "ReportError": "errors",
    "Source": "audit",
    "SourceError": "errors",
    "UnsafePickleError": "errors",
    "audit_prototypes": "audit",
    "load_heads": "checkpoints",
    "load_prototypes": "checkpoints",
    "measure_redundancy": "redundancy",
}

__all__ = [
    "CheckpointError",
    "CollapseAudit",
    "CollapseAuditError",
    "CollapseAuditWarning",
    "ManifestError",
    "NoPrototypesError",
    "ParameterError",
    "PrototypeError",
    "Prototypes",
    "Published",
    "Redundancy",
    "ReportError",
    "Source",
    "SourceError",
    "UnsafePickleError",
    "__version__",
    "audit_prototypes",
    "load_heads",
    "load_prototypes",
    "measure_redundancy",
]


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'collapse_audit' has no attribute {name!r}")
    return getattr(import_module(f"collapse_audit.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)

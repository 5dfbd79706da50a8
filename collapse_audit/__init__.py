"""Diagnose prototype collapse: manifest -> bytes -> Prototypes -> similarity -> CollapseAudit."""

from collapse_audit.errors import CollapseAuditError
from collapse_audit.prototypes import Prototypes

__version__ = "0.1.0"
__all__ = ["CollapseAuditError", "Prototypes", "__version__"]

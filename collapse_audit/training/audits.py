"""The package's own audit, in the few numbers that training logs and tables hold."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from collapse_audit.prototypes import Prototypes


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

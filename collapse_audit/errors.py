"""Every error this package raises on purpose.

::

    CollapseAuditError
    +-- ManifestError      the manifest, or an id that is not in it
    +-- SourceError        a source that cannot be found or opened
    |   +-- IntegrityError      it is not the file it was, or should be
    +-- CheckpointError    a file that is not a readable checkpoint
    |   +-- UnsafePickleError   it wants to run code; nothing was executed
    |   +-- NoPrototypesError   it is readable, but holds no prototypes
    +-- PrototypeError     prototypes that cannot be audited (NaN, zero rows, K = 1)
    +-- ParameterError     an argument out of its range
    +-- DeviceError        a device of this machine that fails, or computes wrongly
    +-- ReportError        a file that is not a report of this package
"""

from collapse_audit.words import printable

_LONGEST = 1000


class CollapseAuditError(Exception):
    """Base of all errors raised on purpose; catching it catches ours and nothing else.

    Attributes:
        message: What is wrong, with the value, in one line.
        hint: What to do next, in one line; empty if the message says it all.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        # they quote names out of files, and end in logs and reports
        self.message, self.hint = printable(message, _LONGEST), printable(hint, _LONGEST)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class CollapseAuditWarning(UserWarning):
    """Something a reader of the result should know, such as a branch chosen for them."""


class ManifestError(CollapseAuditError):
    """The manifest breaks its own rules, or an id is not in it."""


class SourceError(CollapseAuditError):
    """A source that cannot be found or opened."""


class IntegrityError(SourceError):
    """A file whose checksum or size is not the expected one; the message has both."""


class CheckpointError(CollapseAuditError):
    """A file that is not a readable checkpoint, or a head or branch it does not hold."""


class UnsafePickleError(CheckpointError):
    """A pickle that names what only an attack needs; nothing of it was executed."""


class NoPrototypesError(CheckpointError):
    """A readable file without a prototype layer, such as a backbone-only release."""


class PrototypeError(CollapseAuditError):
    """Prototypes that cannot be audited: not finite, of zero norm, or fewer than two."""


class ParameterError(CollapseAuditError):
    """An argument out of its documented range."""


class DeviceError(CollapseAuditError):
    """A device that is there but fails, or whose products break their error bound."""


class ReportError(CollapseAuditError):
    """A file that is not a report of this package, or one of a version it does not know."""

"""Small heads that ship with the package, so that everything works offline."""

from importlib.resources import files
from pathlib import Path


def embedded_head() -> Path:
    """Locate the head that ``collapse-audit demo`` audits.

    Returns:
        A safetensors file with the keys of a DINO teacher: K = 512 prototypes of D = 64, trained on
        digits without a regulariser until most of them were copies. ``README.md`` beside it says
        how it was made.
    """
    # a path and not a stream, because readers map files into memory: wheels install unpacked
    return Path(str(files("collapse_audit.examples").joinpath("digits_baseline.safetensors")))

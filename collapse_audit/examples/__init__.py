"""Small real heads that ship with the package, so that everything works offline."""

from importlib.resources import files
from pathlib import Path


def embedded_head() -> Path:
    """Locate the head that ``collapse-audit demo`` audits.

    Returns:
        A safetensors file with the keys of a DINO teacher: K = 1,024 prototypes of D = 64.
        ``README.md`` beside it says how it was made.
    """
    # a path and not a stream, because readers map files into memory: wheels install unpacked
    return Path(str(files("collapse_audit.examples").joinpath("dino_head.safetensors")))

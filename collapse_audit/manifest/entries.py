"""One row of the manifest, and what can be said about it without opening a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from collapse_audit.errors import ManifestError
from collapse_audit.manifest.recipes import Recipe
from collapse_audit.words import did_you_mean

_SUFFIXES = (".pth.tar", ".pth", ".torch", ".ckpt", ".safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedCount:
    """A count of unique prototypes that somebody else published: a reference, not a target."""

    unique: int  # M
    source: str  # paper, with the table or figure
    epsilon: float | None = None  # cosine distance of their criterion; ``None`` where not stated
    k: int | None = None  # that the source reports, where it is not the K of the row
    second_hand: bool = False  # quoted by others; the paper itself was not seen


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessingProfile:
    """How images are prepared at evaluation."""

    resize: int  # shorter side after resizing, in pixels
    crop: int  # side of the centre crop, in pixels
    interpolation: str  # ``"bicubic"`` or ``"bilinear"``
    mean: tuple[float, ...]  # subtracted from each of the three channels, which are in [0, 1]
    std: tuple[float, ...]  # what the channels are then divided by


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointEntry:
    """One row of the manifest with what it inherits; the head of the file explains the fields."""

    id: str
    family: str
    evidence: str
    source: str
    licence: str | None
    note: str | None = None
    url: str | None = None
    backbone_url: str | None = None
    mirrors: tuple[str, ...] = ()
    fetch: str = "http"
    query_env: str | None = None
    sha256: str | None = None
    size: int | None = None
    expected_size_mb: int | None = None
    container: str | None = None
    tensor_keys: tuple[str, ...] = ()
    k: int | None = None
    nested_k: tuple[int, ...] = ()
    d: int | None = None
    published: tuple[PublishedCount, ...] = ()
    backbone: str | None = None
    timm_name: str | None = None
    patch_size: int | None = None
    dataset: str | None = None
    epochs: int | None = None
    in_dim: int | None = None
    hidden_dim: int | None = None
    linear_layers: int | None = None
    batch_norm: bool | None = None
    norm_last_layer: bool | None = None
    centre_key: str | None = None
    patch_centre_key: str | None = None
    recipe: Recipe = field(default_factory=Recipe)
    # file name in ``url``, where no other row has the same one
    original_name: str | None = field(default=None, metadata={"derived": True})

    @property
    def has_public_head(self) -> bool:
        """Whether a file that holds the head (or, at evidence C, probably does) is public."""
        return self.url is not None

    @property
    def file_name(self) -> str:
        """Local name of the file: the id, because many originals are called checkpoint.pth."""
        original = base_name(self.url or "")
        return self.id + next((s for s in _SUFFIXES if original.endswith(s)), ".pth")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All rows of a manifest file, in its order."""

    entries: tuple[CheckpointEntry, ...]
    recipes: Mapping[str, Recipe]  # of every family, in the order of the file
    preprocessing: Mapping[str, PreprocessingProfile]  # profiles that the recipes name

    @property
    def families(self) -> tuple[str, ...]:
        """Names of the families, in the order of the file."""
        return tuple(self.recipes)

    def recipe(self, family: str | None) -> Recipe:
        """The recipe of a family; one that states nothing if there is no such family."""
        return self.recipes.get(family or "", Recipe())

    def get(self, checkpoint_id: str) -> CheckpointEntry:
        """The row with this id, or a ManifestError that names the ones most like it."""
        for entry in self.entries:
            if entry.id == checkpoint_id:
                return entry
        likely = did_you_mean(checkpoint_id, (entry.id for entry in self.entries))
        raise ManifestError(
            f"No checkpoint is called {checkpoint_id!r} in the manifest.",
            hint=f"{likely} `collapse-audit list` shows every id.".strip(),
        )

    def filter(
        self, *, family: str | None = None, with_head: bool = False
    ) -> tuple[CheckpointEntry, ...]:
        """The rows of one family (by default all), or those of them whose head is public."""
        # a family that is not there is a ManifestError that names the ones most like it
        if family is not None and family not in self.families:
            likely = did_you_mean(family, self.families)
            raise ManifestError(
                f"No family is called {family!r} in the manifest.",
                hint=f"{likely} Families: {', '.join(self.families)}.".strip(),
            )
        return tuple(
            entry
            for entry in self.entries
            if family in {None, entry.family} and (entry.has_public_head or not with_head)
        )


def candidate_file_names(entry: CheckpointEntry) -> tuple[str, ...]:
    """Names a local copy may have: the expected one, and that of the URL if no other row has it."""
    names = (entry.file_name, entry.original_name)
    return tuple(dict.fromkeys(name for name in names if name))


def fetch_hint(entry: CheckpointEntry, folder: Path | str) -> str:
    """Where to get the file of a row, its size, and where to put it; or why there is none."""
    note = entry.note or ""
    if entry.url is None:
        return f"No file with this head is public. {note}".strip()
    save = f"save it as {entry.file_name} in {folder}."
    if entry.fetch == "manual":
        return f"Open {entry.url} in a browser, download the file with the head and {save} {note}"
    if entry.query_env is None:
        return f"Download {entry.url}{_size(entry)} and {save}"
    return (
        f"Download {entry.url}{_size(entry)} and {save} The link needs the query string that "
        f"{entry.source} prints: supply it in the environment variable {entry.query_env}."
    )


def base_name(url: str) -> str:
    """The file name at the end of an address, without query and percent signs; empty for none."""
    return PurePosixPath(unquote(urlsplit(url).path)).name


def _size(entry: CheckpointEntry) -> str:
    """The size in brackets, exact if somebody has fetched the file."""
    if entry.size is not None:
        return f" ({entry.size / 1e6:.0f} MB)"
    return f" (about {entry.expected_size_mb} MB)" if entry.expected_size_mb else ""

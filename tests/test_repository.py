"""The promises that no single module can keep: names, sizes, versions, messages, import cost."""

from __future__ import annotations

import importlib
import importlib.util
import io
import itertools
import json
import pkgutil
import re
import subprocess
import sys
import tokenize
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import collapse_audit

MAX_LINES = 400
# What `import collapse_audit` must not cost: these are imported by the functions that need them.
IMPORTED_LATE = ("torch", "click", "matplotlib", "pandas", "sklearn", "timm", "scipy")
# What `from __future__` and `typing` leave behind in every module.
LANGUAGE_NAMES = {"annotations", "TYPE_CHECKING"}
# Python 3.12 splits an f-string into several tokens; 3.11 has neither of these two.
FSTRING_START = getattr(tokenize, "FSTRING_START", -1)
FSTRING_END = getattr(tokenize, "FSTRING_END", -1)

PACKAGE = Path(collapse_audit.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = ["collapse_audit"] + [
    module.name
    for module in pkgutil.walk_packages(collapse_audit.__path__, prefix="collapse_audit.")
]


@pytest.fixture(scope="module")
def cli_reference(repository: Path) -> types.ModuleType:
    """The script that writes docs/cli.md."""
    path = repository / "docs" / "generate_cli_reference.py"
    spec = importlib.util.spec_from_file_location("generate_cli_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_all_lists_exactly_the_public_names() -> None:
    public = {
        name
        for name in dir(collapse_audit)
        if not name.startswith("_")
        and name not in LANGUAGE_NAMES
        and not isinstance(getattr(collapse_audit, name), types.ModuleType)
    }
    assert set(collapse_audit.__all__) == public | {"__version__"}


def test_no_public_name_hides_a_submodule() -> None:
    submodules = {module.name for module in pkgutil.iter_modules(collapse_audit.__path__)}
    assert submodules.isdisjoint(collapse_audit.__all__)


def test_star_import_gives_exactly_the_public_names() -> None:
    namespace: dict[str, object] = {}
    exec("from collapse_audit import *", namespace)  # noqa: S102 - a star cannot stand in a function
    assert set(namespace) - {"__builtins__"} == set(collapse_audit.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports_and_has_the_names_it_exports(name: str) -> None:
    module = importlib.import_module(name)
    missing = [export for export in getattr(module, "__all__", ()) if not hasattr(module, export)]
    assert missing == []


def test_version_is_the_same_in_package_metadata_citation_and_changelog(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((repository / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(.+?)\]", changelog, flags=re.MULTILINE)
    assert newest is not None
    versions = {project["version"], str(citation["version"]), newest[1]}
    assert versions == {collapse_audit.__version__}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_module_is_too_long_to_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_command_reference_is_what_help_prints(
    cli_reference: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli_reference.main(["--check"]) == 0, capsys.readouterr().err


def test_every_command_has_help_and_a_place_in_the_reference(
    cli_reference: types.ModuleType, repository: Path
) -> None:
    page = (repository / "docs" / "cli.md").read_text(encoding="utf-8")
    contexts = list(cli_reference.walk(cli_reference.cli, cli_reference.PROGRAM))
    assert len(contexts) > 1
    for context in contexts:
        assert f"\n## {context.command_path}\n" in page
        assert context.command.get_short_help_str(), f"{context.command_path} has no help"


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import collapse_audit, json, sys; print(json.dumps(sorted(sys.modules)))"
    printed = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert set(json.loads(printed)).isdisjoint(IMPORTED_LATE)


def test_the_quick_tier_has_tests_of_every_file_and_every_room(
    request: pytest.FixtureRequest,
) -> None:
    if len({item.path for item in request.session.items}) < 50:
        pytest.skip("not the whole suite")
    items = [item for item in request.session.items if not item.get_closest_marker("slow")]
    quick = [item for item in items if item.get_closest_marker("quick")]
    assert {item.path for item in quick} == {item.path for item in items}
    assert 200 < len(quick) < 600
    text = "".join(path.read_text(encoding="utf-8") for path in {item.path for item in quick})
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix in {"", ".py"}}
    called = {
        "version": "__version__",
        "reproduction": '"reproduce"',
        "dead_rows": r"\.dead\b",
        "gallery": r"\.gallery\(",
        "thumbnails": "thumbnail",
    }
    for room in sorted(room for room in rooms if not room.startswith("_")):
        assert re.search(called.get(room, rf"(collapse_audit[./]|import ){room}\b"), text), room


def string_pieces(source: str) -> Iterator[list[tuple[int, str]]]:
    """Yield runs of adjacent string literals as (line, source text), f-strings in one piece."""
    lines = source.splitlines(keepends=True)
    run: list[tuple[int, str]] = []
    starts: list[tuple[int, int]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == FSTRING_START:
            starts.append(token.start)
        elif token.type == FSTRING_END:
            (first, column), (last, end) = starts.pop(), token.end
            if not starts:
                text = "".join(lines[first - 1 : last])
                run.append((first, text[column : len(text) - len(lines[last - 1]) + end]))
        elif starts or token.type in (tokenize.NL, tokenize.COMMENT):
            continue
        elif token.type == tokenize.STRING:
            run.append((token.start[0], token.string))
        else:
            yield run
            run = []


def joined_words(source: str) -> list[str]:
    """Places where a message was split without a space, as ``line: ...end + start...``."""
    found = []
    for run in string_pieces(source):
        bodies = [(line, literal_body(text)) for line, text in run]
        for (_, left), (line, right) in itertools.pairwise(bodies):
            # A piece without any space is no prose: a URL, a format or a table of characters.
            prose = " " in left or " " in right
            escaped = re.search(r"\\.$", left) is not None
            if (
                prose
                and not escaped
                and re.search(r"[a-zA-Z.,;:!?]$", left)
                and right[:1].isalpha()
            ):
                found.append(f"{line}: ...{left[-20:]} + {right[:20]}...")
    return found


def literal_body(text: str) -> str:
    """The text of a string literal between its quotes."""
    body = re.sub(r"^[a-zA-Z]*", "", text)
    quotes = 3 if body[:3] in ('"""', "'''") else 1
    return body[quotes:-quotes]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_split_message_runs_words_together(path: Path) -> None:
    assert joined_words(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_the_library_knows_no_option_of_the_command_line(path: Path) -> None:
    """Parameters are called ``name=value``, which the command line turns into its options."""
    if path.is_relative_to(PACKAGE / "cli"):
        return
    pieces = (text for run in string_pieces(path.read_text("utf-8")) for _, text in run)
    prose = (text for text in pieces if '"""' not in text and "collapse-audit " not in text)
    assert [text for text in prose if re.search(r"(?<![\w-])--[a-z]{3}", text)] == []


@pytest.mark.parametrize(
    ("source", "defects"),
    [
        ('x = ("one two"\n     "three")', 1),
        ('x = ("one two "\n     "three")', 0),
        ('x = ("one two."\n     "Three")', 1),
        ('x = (f"one {n}: two"\n     # why\n     f"three {n}")', 1),
        ('x = (f"one {n}"\n     "three four")', 0),
        pytest.param(
            'x = (f"one {d["a"] if n else "b"} two" "three")',
            1,
            marks=pytest.mark.skipif(FSTRING_START == -1, reason="syntax of Python 3.12"),
        ),
        ("x = (r'one two' '''three''')", 1),
        ('x = ("one two\\n"\n     "three")', 0),
        ('x = ("https://example.org/a"\n     "b")', 0),
        ('x = ["one two", "three"]', 0),
    ],
)
def test_the_scanner_for_split_messages_finds_what_it_should(source: str, defects: int) -> None:
    assert len(joined_words(source)) == defects


@pytest.mark.parametrize("script", ["generate_model_zoo.py", "draw_landing_figure.py"])
def test_what_scripts_write_into_the_site_is_fresh(repository: Path, script: str) -> None:
    command = [sys.executable, repository / "docs" / script, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_model_zoo_has_every_checkpoint_of_the_manifest(repository: Path) -> None:
    page = (repository / "docs" / "models.md").read_text(encoding="utf-8")
    rows = yaml.safe_load((repository / "checkpoints_manifest.yaml").read_text("utf-8"))
    ids = [row["id"] for row in rows["checkpoints"]]
    assert sorted(re.findall(r"^\| `(\S+)` \|", page, flags=re.MULTILINE)) == sorted(ids)


def test_the_api_page_documents_every_public_name_once(repository: Path) -> None:
    page = (repository / "docs" / "api.md").read_text(encoding="utf-8")
    named = re.findall(r"^\.\. auto(?:function|class|exception):: (\w+)$", page, flags=re.MULTILINE)
    assert sorted(named) == sorted(set(collapse_audit.__all__) - {"__version__"})


def test_llms_txt_links_every_page_of_the_site_once(repository: Path) -> None:
    index = (repository / "docs" / "index.md").read_text(encoding="utf-8")
    trees = re.findall(r"```\{toctree\}\n(?::.*\n)+\n((?:\S+\n)+)```", index)
    pages = [page for tree in trees for page in tree.split()]
    linked = re.findall(r"\((\S+)\.html\)", (repository / "docs/llms.txt").read_text("utf-8"))
    assert len(pages) > 20
    assert sorted(linked) == sorted(pages)


def test_the_map_names_every_room_of_the_package(repository: Path) -> None:
    page = (repository / "AGENTS.md").read_text(encoding="utf-8")
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert [room for room in sorted(rooms) if f"{room}/`" not in page] == []
    assert [
        link for link in re.findall(r"\]\(([^)#]+)", page) if not (repository / link).exists()
    ] == []

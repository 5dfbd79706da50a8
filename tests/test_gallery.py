"""The gallery: what it shows against plain loops, and what its page must not hold."""

from __future__ import annotations

import base64
import csv
import json
import re
from collections import Counter
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

import collapse_audit
from collapse_audit import CollapseAudit, MLCDAccumulator, ParameterError, thumbnails
from collapse_audit.cli import main
from collapse_audit.cli.assignments import check_suffix
from collapse_audit.report.html import gallery_to_html, to_html
from collapse_audit.report.schema import document_schema
from tests.test_report_html import Page

EXAMPLES = Path(collapse_audit.__file__).parent / "examples"
HOSTILE = '"><img src=x onerror=alert(1)><script>alert(1)</script>'


@pytest.fixture(scope="module")
def planted() -> CollapseAudit:
    """Groups of 9, 4, 2 and 1 near copies, and 300 labelled samples around them."""
    rng = np.random.default_rng(5)
    rows = np.repeat(np.eye(4, 16), [9, 4, 2, 1], axis=0) + 0.02 * rng.standard_normal((16, 16))
    audit = collapse_audit.audit_prototypes(rows, sweep=False, nearest=False)
    x = np.eye(4, 16)[rng.integers(4, size=300)] + 0.4 * rng.standard_normal((300, 16))
    accumulator = MLCDAccumulator(audit.prototypes, temperature=0.1, groups=audit.groups)
    return audit.with_mlcd(accumulator.update(x, labels=rng.integers(3, size=300)).result())


@pytest.fixture(scope="module")
def digits() -> dict[str, CollapseAudit]:
    """Both heads of the package over the digits they were trained on."""
    found = {}
    for name in ("baseline", "koleo_proto"):
        head = EXAMPLES / f"digits_{name}.safetensors"
        audit = collapse_audit.audit(head, sweep=False)
        mlcd = collapse_audit.measure_mlcd(head, "digits", groups=audit.groups)
        found[name] = audit.with_mlcd(mlcd)
    return found


def test_a_class_has_its_samples_and_copies_in_order(planted: CollapseAudit) -> None:
    mlcd, gallery = planted.mlcd, planted.gallery(classes=4, top=5)
    assert mlcd is not None
    assert mlcd.unique_winner_probabilities is not None
    assert mlcd.copy_winners is not None
    assert (gallery.k, gallery.m, gallery.n, gallery.largest) == (16, 4, 300, (0, 1, 2))
    masses = [sum(mlcd.probabilities[planted.members(m)]) for m in range(4)]
    assert gallery.heaviest == tuple(sorted(range(4), key=lambda m: -masses[m]))
    pure = 0
    for m, found in gallery.classes.items():
        own = [i for i in range(300) if mlcd.assignments()["group"][i] == m]
        labels = Counter(mlcd.assignments()["label"][own])
        pure += max(labels.values())
        assert found.redundancy_factor == len(planted.members(m))
        assert found.probability == pytest.approx(masses[m])
        assert (found.count, found.label_count) == (len(own), max(labels.values()))
        assert labels[found.label] == found.label_count
        own.sort(key=lambda i: -mlcd.unique_winner_probabilities[i])
        assert found.samples.tolist() == own[:5]
        assert found.sample_copies.tolist() == [mlcd.copy_winners[i] for i in own[:5]]
        taken = Counter(mlcd.copy_winners[own].tolist())
        assert dict(zip(found.copies, found.copy_counts, strict=True)) == {
            k: taken[k] for k in planted.members(m)
        }
        assert (np.diff(found.copy_counts) <= 0).all()
        assert found.copies_used == len(taken)
    assert gallery.purity == pytest.approx(pure / 300)


def test_images_of_one_class_stand_together_more_with_koleo(
    digits: dict[str, CollapseAudit],
) -> None:
    galleries = {name: audit.gallery() for name, audit in digits.items()}
    purity = {name: gallery.purity or 0.0 for name, gallery in galleries.items()}
    chance = {name: gallery.purity_by_chance or 0.0 for name, gallery in galleries.items()}
    assert purity["koleo_proto"] > purity["baseline"] + 0.05
    # also of what chance leaves: more classes are purer by themselves
    gain = {name: (purity[name] - chance[name]) / (1 - chance[name]) for name in purity}
    assert gain["koleo_proto"] > gain["baseline"] + 0.05
    assert galleries["koleo_proto"].largest == ()  # it has no copies
    for found in galleries["koleo_proto"].classes.values():
        assert found.label_count >= 0.85 * found.count


def test_the_page_holds_its_images_and_loads_nothing(digits: dict[str, CollapseAudit]) -> None:
    samples = collapse_audit.open_samples("digits")
    gallery = digits["baseline"].gallery(samples, classes=3, top=4)
    text = gallery.to_html()
    page = Page(text)
    assert page.open == []
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in text
    assert set(page.tags).isdisjoint({"script", "link", "iframe", "object", "embed", "base"})
    names = {name for name, _ in page.attributes}
    assert names.isdisjoint({"href", "srcset", "action"})
    assert not any(name.startswith("on") for name in names)
    sources = [value for name, value in page.attributes if name == "src"]
    assert len(sources) == 4 * len(gallery.classes)
    first = gallery.classes[gallery.largest[0]].samples[0]
    shown = Image.open(BytesIO(base64.b64decode(sources[0].partition(",")[2])))
    assert samples.images is not None
    np.testing.assert_array_equal(np.asarray(shown)[:, :, 0], samples.images[first])  # lossless
    assert "img" in Page(gallery._repr_html_()).tags


def test_other_pages_still_show_no_images(report: dict[str, Any]) -> None:
    assert "img-src" not in to_html(report)  # type: ignore[arg-type]


def test_names_out_of_files_cannot_become_markup(planted: CollapseAudit) -> None:
    plain = planted.gallery()
    source = replace(planted.source, spec=HOSTILE, family=HOSTILE)
    prototypes = replace(planted.prototypes, name=HOSTILE)
    hostile = replace(planted, source=source, prototypes=prototypes).gallery()
    assert Page(hostile.to_html()).tags == Page(plain.to_html()).tags
    assert Page(hostile._repr_html_()).tags == Page(plain._repr_html_()).tags
    assert str(hostile).isascii()


def test_without_images_the_samples_are_told_in_words(planted: CollapseAudit) -> None:
    page = Page(planted.gallery().to_html())
    assert "img" not in page.tags
    assert "it holds no images" in page.text


def test_the_largest_page_stays_below_two_megabytes(planted: CollapseAudit) -> None:
    gallery = planted.gallery()
    found = replace(gallery.classes[0], samples=np.arange(24) + 10**9,
                    sample_probabilities=np.full(24, 0.123), sample_copies=np.full(24, 10**6),
                    sample_labels=np.full(24, 10**6), copies=np.arange(24) + 10**6,
                    copy_counts=np.full(24, 10**6),
                    copy_probabilities=np.full(24, 0.123))  # fmt: skip
    classes = {m: replace(found, group=m, samples=found.samples + 24 * m) for m in range(48)}
    image = "x" * (thumbnails._ALL // (24 * 48))
    full = replace(
        gallery,
        classes=classes,
        largest=tuple(range(24)),
        heaviest=tuple(range(24, 48)),
        thumbnails={int(i): image for each in classes.values() for i in each.samples},
    )
    page = full.to_html()
    assert page.count(image) == 24 * 48
    assert len(page.encode()) < 2_000_000


def test_thumbnails_are_small_whatever_the_images_are(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(256, size=shape, dtype=np.uint8)
              for shape in ((300, 200, 3), (2, 500), (500, 2, 3), (31, 31), (1, 1))]  # fmt: skip
    monkeypatch.setattr(thumbnails, "_ALL", 5 * 1041)
    found = thumbnails.thumbnails(images, range(5))
    assert max(map(len, found.values())) <= 1041
    monkeypatch.undo()
    (large,) = thumbnails.thumbnails(images, [0]).values()
    assert Image.open(BytesIO(base64.b64decode(large.partition(",")[2]))).size == (64, 96)


def test_nothing_of_a_file_but_its_pixels_is_in_the_page(
    tmp_path: Path, planted: CollapseAudit
) -> None:
    exif = Image.Exif()
    exif[0x010E] = "SECRET-PLACE"
    path = tmp_path / "SECRET-NAME.jpg"
    Image.new("RGB", (60, 40), "red").save(
        path, exif=exif, comment=b"SECRET-COMMENT", icc_profile=b"SECRET-PROFILE"
    )
    assert path.read_bytes().count(b"SECRET") == 3
    with Image.open(path) as image:
        page = planted.gallery([image] * 300, classes=1, top=1).to_html()
    (data,) = re.findall(r'src="data:image/webp;base64,([^"]*)"', page)[:1]
    assert b"SECRET" not in base64.b64decode(data)
    assert "SECRET" not in page


def test_images_that_cannot_be_read_are_left_out() -> None:
    class Images:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            if index:
                raise OSError("truncated")
            return np.zeros((4, 4), np.uint8)

    assert list(thumbnails.thumbnails(Images(), [0, 1])) == [0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 0}, "classes and top must be from 1 to 24, got 0 and 12"),
        ({"top": 25}, "classes and top must be from 1 to 24, got 8 and 25"),
        ({"images": [np.zeros((4, 4), np.uint8)]}, "was measured, and there are 1 images"),
    ],
)
def test_what_does_not_fit_is_refused(
    planted: CollapseAudit, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        planted.gallery(**change)


def test_a_gallery_needs_classes(planted: CollapseAudit) -> None:
    with pytest.raises(ParameterError, match="none were measured"):
        replace(planted, mlcd=None).gallery()
    assert planted.mlcd is not None
    ungrouped = replace(planted.mlcd, groups=None, unique_winners=None)
    with pytest.raises(ParameterError, match="has no groups"):
        replace(planted, mlcd=ungrouped).gallery()


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty digits as files in folders, one of a hostile name."""
    samples = collapse_audit.open_samples("digits")
    assert samples.images is not None
    assert samples.labels is not None
    for i in range(40):
        place = tmp_path / "data" / f"={samples.labels[i]}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(samples.images[i])).save(place / f"{i:02}<b>.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_writes_page_json_and_assignments(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["gallery", "demo", "--data", "data", "--classes", "2", "--top", "3"]
    assert main([*common, "-o", "page.html", "--assignments", "classes.csv"]) == 0
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert "data:image/webp" in page
    assert str(folder) not in page
    assert "<b>" not in page
    with (folder / "classes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["sample"]) for row in rows] == list(range(40))
    assert all(row["file"].startswith("'=") for row in rows)  # no formula
    assert main([*common, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, document_schema("gallery"))
    for found in document["classes"]:
        assert found["count"] == sum(int(row["group"]) == found["group"] for row in rows)
    assert main(common) == 0
    assert "Largest groups" in capsys.readouterr().out


def test_mlcd_writes_the_same_assignments(folder: Path) -> None:
    for command in ("gallery", "mlcd"):
        file = f"{command}.csv"
        assert main([command, "demo", "--data", "digits", "--limit", "30", "--quiet",
                     "--assignments", file]) == 0  # fmt: skip
    text = (folder / "mlcd.csv").read_text(encoding="utf-8")
    assert text == (folder / "gallery.csv").read_text(encoding="utf-8")
    assert text.splitlines()[0] == "sample,prototype,probability,group,group_probability,label"
    assert len(text.splitlines()) == 31


def test_kept_features_still_find_their_images(folder: Path) -> None:
    command = ["gallery", "demo", "--data", "digits", "--limit", "50", "--features",
               "kept.safetensors", "-o"]  # fmt: skip
    for file in ("first.html", "second.html"):
        assert main([*command, file]) == 0
    first, second = ((folder / f"{name}.html").read_text("utf-8") for name in ("first", "second"))
    assert "data:image/webp" in first
    assert first == second


def test_assignments_of_another_kind_are_refused_before_the_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mlcd", "demo", "--data", "digits", "--assignments", "classes.txt"]) == 2
    assert "classes.txt: is neither .csv nor .parquet." in capsys.readouterr().err
    monkeypatch.setattr("collapse_audit.cli.assignments.find_spec", lambda _: None)
    with pytest.raises(ParameterError, match=r"parquet needs pyarrow, which is not installed"):
        check_suffix(folder / "classes.parquet")


def test_parquet_holds_the_same_table(folder: Path) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd

    command = ["mlcd", "demo", "--data", "data", "--quiet", "--assignments"]
    assert [main([*command, f"classes.{kind}"]) for kind in ("csv", "parquet")] == [0, 0]
    table = pd.read_parquet(folder / "classes.parquet")
    assert table["group"].tolist() == pd.read_csv(folder / "classes.csv")["group"].tolist()
    assert table["file"][0].startswith("=")


def test_the_document_without_images_is_the_page(planted: CollapseAudit) -> None:
    gallery = planted.gallery()
    jsonschema.validate(json.loads(gallery.to_json()), document_schema("gallery"))
    assert gallery_to_html(gallery.to_dict(), {}) == gallery.to_html()
    assert repr(gallery) == "Gallery(m=4, n=300, used=4, classes=4)"

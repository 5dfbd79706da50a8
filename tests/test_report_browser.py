"""The page in a browser: what its script adds, and that nothing is loaded or refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collapse_audit.head_audit import CollapseAudit, audit_prototypes
from collapse_audit.report.html import to_html
from tests.chromium import ask, run_chromium

pytestmark = pytest.mark.slow
HEAD = "const all = (q) => [...document.querySelectorAll(q)], text = (q) => all(q)[0].textContent;"


@pytest.fixture(scope="module")
def audit() -> CollapseAudit:
    """100 prototypes: 7 copies of the last of 30 directions, and fewer of others."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((60, 16))
    copies = np.repeat(rows[:30], [*range(1, 11), *[1] * 19, 7], axis=0)[:70]
    near = copies + rng.uniform(0, 0.3, (70, 1)) * rng.standard_normal(copies.shape)
    return audit_prototypes(np.concatenate([rows[30:], near]))


@pytest.fixture(scope="module")
def page(audit: CollapseAudit) -> str:
    """Its page."""
    return audit.to_html()


def test_the_page_runs_under_its_own_policy_and_asks_for_nothing(
    page: str, report: dict[str, Any], tmp_path: Path
) -> None:
    for number, text in enumerate((page, to_html(report, report))):
        file = tmp_path / f"{number}.html"
        file.write_text(text, encoding="utf-8")
        # a request would be refused by the policy, and the console would say so
        shown, console = run_chromium(file, "--dump-dom")
        assert console == []
        assert '<p class="slider">' in shown  # the script ran
        assert "hidden" in re.findall(r'<p class="slider"([^>]*)>', text)[0]


def test_a_script_that_is_not_the_page_s_own_is_refused(page: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    added = "<script>document.title = 'ran'</script><img src=x onerror=alert(1)></body>"
    file.write_text(page.replace("</body>", added), encoding="utf-8")
    shown, console = run_chromium(file, "--dump-dom")
    assert "<title>ran" not in shown
    assert "Content Security Policy" in " ".join(console)


def test_the_slider_moves_the_numbers_to_those_of_the_sweep(
    page: str, audit: CollapseAudit, tmp_path: Path
) -> None:
    seen = ask(page, tmp_path, HEAD + """
        const slider = all(".slider input")[0], width = (n) =>
            Number(all(`[data-gauge=${n}]`)[0].getAttribute("width"));
        return [...Array(Number(slider.max) + 1).keys()].map((at) => {
            slider.value = at;
            slider.dispatchEvent(new Event("input"));
            return [
                ...["unique", "components", "isolated", "n_eff", "threshold"].map(
                    (name) => text(`[data-show=${name}]`)),
                width("unique"),
                Number(all("[data-mark]")[0].getAttribute("x1")),
            ];
        });""")  # fmt: skip
    sweep = audit.redundancy.sweep
    assert len({level.greedy for level in sweep}) > 3
    assert [row[:3] for row in seen] == [
        [str(level.greedy), str(level.components), str(level.isolated)] for level in sweep
    ]
    for row, level in zip(seen, sweep, strict=True):
        assert float(row[3]) == pytest.approx(level.n_eff.value, rel=0.01)
        assert row[4].startswith(f"epsilon {level.threshold:g} (")
        assert row[5] == pytest.approx(520 * level.greedy / 100, abs=0.01)
    marks = [row[6] for row in seen]
    assert marks == sorted(marks)
    assert (marks[0], marks[-1]) == (0, 520)


def test_the_groups_are_paged_sorted_and_searched(
    page: str, audit: CollapseAudit, tmp_path: Path
) -> None:
    seen = ask(page, tmp_path, HEAD + """
        const rows = () => all("[data-groups] tbody tr").map((row) =>
            [...row.children].slice(0, 3).map((cell) => Number(cell.textContent)));
        const place = () => text(".groups-bar output");
        const [back, next] = all(".groups-bar button"), search = all(".groups-bar input")[0];
        const [number, leader, r] = all("[data-groups] thead button");
        const found = [[rows(), place(), back.disabled, next.disabled]];
        const tell = () => found.push([rows(), place(), back.disabled, next.disabled]);
        next.click(); tell();
        leader.click(); tell();
        leader.click(); tell();
        for (const wanted of ["99", "99, 0", "nothing", "100"]) {
            search.value = wanted;
            search.dispatchEvent(new Event("input"));
            tell();
        }
        return found;""")  # fmt: skip
    m = audit.num_unique
    factors, leaders = audit.redundancy_factors, audit.redundancy.leaders
    table = [[g, int(leaders[g]), int(factors[g])] for g in range(m)]
    assert m > 50
    first, second, up, down, one, two, all_of_them, none = seen
    assert first == [table[:25], f"1 to 25 of {m}", True, False]
    assert second == [table[25:50], f"26 to 50 of {m}", False, False]
    by_leader = sorted(table, key=lambda row: row[1])
    assert up == [by_leader[:25], f"1 to 25 of {m}", True, False]
    assert down[0] == by_leader[::-1][:25]
    of = {index: table[audit.groups[index]] for index in (0, 99)}
    assert one == [[of[99]], "1 to 1 of 1", True, True]
    assert sorted(two[0]) == sorted(of.values())
    assert all_of_them[0] == down[0]
    assert none == [[], "no group has it", True, True]


def test_copy_takes_every_prototype_of_a_group(
    page: str, audit: CollapseAudit, tmp_path: Path
) -> None:
    copied = ask(page, tmp_path, HEAD + """
        let taken = null;
        document.execCommand = () => { taken = document.activeElement.value; return true; };
        const button = all("[data-groups] tbody button")[0];
        button.click();
        return [taken, button.textContent, all("textarea").length];""")  # fmt: skip
    assert copied == [", ".join(map(str, audit.members(0))), "Copied", 0]


def test_one_head_is_shown_at_a_time_and_all_are_printed(
    report: dict[str, Any], tmp_path: Path
) -> None:
    page = to_html(report)
    shown = "return all('section').map((s) => getComputedStyle(s).display);"
    assert ask(page, tmp_path, HEAD + shown) == ["block", "none"]
    chosen = "all('.tab > label')[1].click();" + shown
    assert ask(page, tmp_path, HEAD + chosen) == ["none", "block"]
    printed = ask(page.replace("@media print", "@media all"), tmp_path, HEAD + shown)
    assert printed == ["block", "block"]


def test_the_page_prints(page: str, tmp_path: Path) -> None:
    file, printed = tmp_path / "page.html", tmp_path / "page.pdf"
    file.write_text(page, encoding="utf-8")
    run_chromium(file, f"--print-to-pdf={printed}")
    assert printed.read_bytes().startswith(b"%PDF-")


@pytest.mark.parametrize("width", [400, 1000, 1600])
def test_the_page_is_never_wider_than_the_window(page: str, tmp_path: Path, width: int) -> None:
    # a window has 500 pixels at least, so it is the body that is narrow
    script = f"document.body.style.width = '{width}px'; return document.body.scrollWidth;"
    assert ask(page, tmp_path, script, f"--window-size={max(width, 500)},900") <= width

"""A verdict as JUnit XML, which GitLab, Jenkins and most other CI systems show."""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree as ET  # only writes: nothing foreign is parsed

from collapse_audit.report.documents import CheckDocument, VerdictDocument
from collapse_audit.report.verdict_text import failure
from collapse_audit.report.words import head_name
from collapse_audit.words import printable

_SUITE: Final = "collapse-audit"


def verdict_to_junit(verdict: VerdictDocument) -> str:
    """Write a verdict as one test suite: a test case per check, in the class of its head."""
    suite = _suite(verdict["checks"])
    ET.SubElement(suite, "properties").extend(
        ET.Element("property", name=key, value=printable(value or ""))
        for key, value in (("source", verdict["source"]), ("baseline", verdict["baseline"]))
    )
    for check in verdict["checks"]:
        case = _case(suite, head_name(check["head"], check["branch"]), check["threshold"])
        if check["status"] == "failed":
            ET.SubElement(case, "failure", message=printable(failure(check)), type="regression")
        elif check["status"] == "skipped":
            ET.SubElement(case, "skipped", message="there is no baseline")
    return _document(suite)


def error_to_junit(message: str) -> str:
    """Write an input error as a suite with one case that could not be run."""
    suite = _suite([], errors=1)
    case = _case(suite, _SUITE, "audit")
    ET.SubElement(case, "error", message=printable(message, 2000), type="input")
    return _document(suite)


def _suite(checks: list[CheckDocument], errors: int = 0) -> ET.Element:
    statuses = [check["status"] for check in checks]
    return ET.Element(
        "testsuite",
        name=_SUITE,
        tests=str(len(checks) + errors),
        failures=str(statuses.count("failed")),
        errors=str(errors),
        skipped=str(statuses.count("skipped")),
    )


def _case(suite: ET.Element, head: str, name: str) -> ET.Element:
    return ET.SubElement(
        suite, "testcase", classname=printable(head), name=printable(name), time="0"
    )


def _document(suite: ET.Element) -> str:
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    body = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{body}\n'

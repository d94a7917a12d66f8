"""The gate's result as files that others read: JUnit XML for CI systems, Markdown for a pull request.

JUnit: a case that fails is a `failure`; one that is inconclusive is `skipped` with its reason. An `error`
would be shown as a broken test, a pass would hide it; as skipped it is counted and listed by Jenkins, GitLab
and GitHub's reporters, while the exit code of `bench gate` (3) keeps the job from passing.
The order of elements and their attributes are those of the Ant schema (JUnit.xsd), which all of them read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from reports.gate import Gate, GatedCase
from reports.markup import NOTHING
from reports.metrics import metric_of

# All that XML 1.0 may hold; nothing else can be written, escaped or not.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NOT_PLAIN = re.compile(r"([\\`*_{}\[\]()<>#+!|~&$])")
_SIGNS = {"pass": "✅ pass", "fail": "❌ fail", "inconclusive": "❔ inconclusive"}


def junit_text(gate: Gate) -> str:
    """A document with one suite, a test case for each case."""
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        {
            "name": f"bench gate {gate.metric}",
            "package": "bench",
            "id": "0",
            # The schema has no place for an offset.
            "timestamp": gate.created_at[:19],
            "hostname": "localhost",
            "tests": str(len(gate.cases)),
            "failures": str(gate.count("fail")),
            "errors": "0",
            "skipped": str(gate.count("inconclusive")),
            "time": "0",
        },
    )
    facts = {
        "base": gate.base,
        "new": gate.new,
        "metric": gate.metric,
        "max_regression_share": f"{gate.max_regression_share:g}",
        "outcome": gate.outcome,
    }
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in facts.items():
        ElementTree.SubElement(properties, "property", {"name": name, "value": _xml_text(value)})
    for case in gate.cases:
        _test_case(suite, gate, case)
    ElementTree.SubElement(suite, "system-out").text = _xml_text(gate.summary)
    ElementTree.SubElement(suite, "system-err")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _test_case(suite: ElementTree.Element, gate: Gate, case: GatedCase) -> None:
    named = {"name": _one_line(case.name), "classname": f"bench.gate.{gate.metric}", "time": "0"}
    element = ElementTree.SubElement(suite, "testcase", named)
    said = _xml_text(_said(gate, case))
    if case.outcome == "fail":
        ElementTree.SubElement(element, "failure", {"type": "regression", "message": said}).text = said
    elif case.outcome == "inconclusive":
        ElementTree.SubElement(element, "skipped", {"message": said}).text = said


def _said(gate: Gate, case: GatedCase) -> str:
    """Values and regression of a case in one line."""
    unit = metric_of(gate.metric).shown_unit
    parts = [f"{gate.metric} in {unit}: BASE {case.base.text(gate.metric)}, NEW {case.new.text(gate.metric)}"]
    if found := case.regression_text(gate.metric):
        parts.append(f"NEW worse by {found}, limit {limit_text(gate)}")
    if case.why:
        parts.append(f"{case.outcome}: {case.why}")
    return "; ".join(parts)


def limit_text(gate: Gate) -> str:
    """`1.05x`, or of a share `+5 %`."""
    share = gate.max_regression_share
    return f"+{100 * share:g} %" if metric_of(gate.metric).is_additive else f"{1 + share:g}x"


def _xml_text(value: str) -> str:
    return _NOT_XML.sub("\ufffd", value)


# --- Markdown --------------------------------------------------------------------------------------


def markdown_text(gate: Gate) -> str:
    """A heading, one table, what a reviewer has to know. Names stand in code spans, which hold no markup."""
    unit = metric_of(gate.metric).shown_unit
    heads = ("deployment", "scenario", "load", f"BASE, {unit}", f"NEW, {unit}", "NEW worse by", "")
    lines = [
        f"### bench gate: {_SIGNS[gate.outcome]}",
        "",
        f"{_plain(gate.summary)}. Limit: {limit_text(gate)}.",
        "",
        *_table(heads, [_cells(gate, case) for case in gate.cases]),
        "",
        f"BASE {_code(gate.base)}, NEW {_code(gate.new)}. {_HOW[gate.is_interleaved]}",
    ]
    if notes := list(_notes(gate)):
        lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join([*lines, *_what_differs(gate)]) + "\n"


def _notes(gate: Gate) -> Iterator[str]:
    for case in gate.cases:
        yield from (f"{_code(case.name)}: {_plain(mark)}" for mark in case.marks)
    yield from (f"Not gated: {_code(each.what)}: {_plain(each.why)}" for each in gate.left_out)
    if gate.distrust:
        found = (f"{_plain(title)} ({' and '.join(sides)})" for title, sides in gate.distrust.items())
        yield f"Reasons to distrust: {'; '.join(found)}"


def _what_differs(gate: Gate) -> list[str]:
    """Folded: it may be long."""
    if not gate.differences:
        return []
    rows = [[each.kind, *map(_code, each.cells())] for each in gate.differences]
    title = f"<details><summary>What differs ({len(rows)})</summary>"
    return ["", title, "", *_table(("", "what", "BASE", "NEW"), rows), "", "</details>"]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


_HOW = {
    True: "Paired by block.",
    False: "The runs were not interleaved: whatever changed between them is in the ratios.",
}


def _cells(gate: Gate, case: GatedCase) -> list[str]:
    outcome = _SIGNS[case.outcome] + (f": {_plain(case.why)}" if case.why else "")
    names = [_code(name) for name in (case.deployment, case.scenario, case.load)]
    values = [_plain(side.text(gate.metric)) for side in (case.base, case.new)]
    return [*names, *values, _plain(case.regression_text(gate.metric) or NOTHING), outcome]


def _code(value: str) -> str:
    """A code span: no markup, no mention, no entity in it; a table's cell still ends at a bar."""
    inside = _one_line(value).replace("`", "'").replace("|", r"\|")
    return f"`{inside or NOTHING}`"


def _plain(value: str) -> str:
    """Text without markup; an invisible character keeps an @ from being a mention."""
    return _NOT_PLAIN.sub(r"\\\1", _one_line(value)).replace("@", "@\u200b")


def _one_line(value: str) -> str:
    return " ".join(_xml_text(value).split())

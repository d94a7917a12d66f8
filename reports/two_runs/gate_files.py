"""The gate's result as files that others read: JUnit XML for CI systems, Markdown for a pull request.

JUnit: a case that fails is a `failure`; one that is inconclusive is `skipped` with its reason. An `error`
would be shown as a broken test, a pass would hide it; the exit code of `bench gate` (3) keeps the job from
passing. Elements and attributes are in the order of the Ant schema (JUnit.xsd), which all systems read.
"""

import re
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from reports.checks.examine import SIGN, mark_text
from reports.measures.metrics import metric_of
from reports.two_runs import gfm
from reports.two_runs.gate import Gate, GatedCase, limit_text
from reports.two_runs.side_values import Mark

# All that XML 1.0 may hold; nothing else can be written, escaped or not.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SIGNS = {"pass": "✅ pass", "fail": "❌ fail", "inconclusive": "❔ inconclusive"}


def junit_text(gate: Gate) -> str:
    """Return a document with one suite and a test case for each case."""
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
    ElementTree.SubElement(suite, "system-out").text = _xml_text("\n".join(_told(gate)))
    ElementTree.SubElement(suite, "system-err")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _test_case(suite: ElementTree.Element, gate: Gate, case: GatedCase) -> None:
    named = {
        "name": " ".join(_xml_text(case.name).split()),
        "classname": f"bench.gate.{gate.metric}",
        "time": "0",
    }
    element = ElementTree.SubElement(suite, "testcase", named)
    said = _xml_text(_said(gate, case))
    if case.outcome == "fail":
        ElementTree.SubElement(element, "failure", {"type": "regression", "message": said}).text = said
    elif case.outcome == "inconclusive":
        ElementTree.SubElement(element, "skipped", {"message": said}).text = said


def _told(gate: Gate) -> Iterator[str]:
    """Yield what a case that passes has no place for, then what the marks stand for, and the verdict."""
    yield from (f"{case.name}: {_said(gate, case)}" for case in gate.cases)
    yield from (f"Not gated: {each.what}: {each.why}" for each in gate.left_out)
    yield from (f"Reason to distrust: {each.text}" for each in gate.distrust)
    yield gate.summary


def _said(gate: Gate, case: GatedCase) -> str:
    """Return values and regression of a case in one line, each with its mark."""
    unit = metric_of(gate.metric).shown_unit
    base, new = (_marked(side.text(gate.metric), side.marks) for side in (case.base, case.new))
    parts = [f"{gate.metric} in {unit}: BASE {base}, NEW {new}"]
    if found := case.regression_text(gate.metric):
        limit = limit_text(gate.metric, gate.max_regression_share)
        parts.append(_marked(f"NEW worse by {found}, limit {limit}", case.marks))
    if case.why:
        parts.append(f"{case.outcome}: {case.why}")
    if case.marks:
        parts.append(f"reasons to distrust: {', '.join(dict.fromkeys(each.title for each in case.marks))}")
    return "; ".join([*parts, *case.notes])


def _marked(said: str, marks: Sequence[Mark]) -> str:
    return f"{said} {mark_text(marks)}".rstrip()


def _xml_text(value: str) -> str:
    return _NOT_XML.sub("\ufffd", value)


# --- Markdown --------------------------------------------------------------------------------------


def markdown_text(gate: Gate) -> str:
    """Return a heading, one table and what a reviewer has to know; names stand in code spans."""
    unit = metric_of(gate.metric).shown_unit
    heads = ("deployment", "scenario", "load", f"BASE, {unit}", f"NEW, {unit}", "NEW worse by", "")
    lines = [
        f"### bench gate: {_SIGNS[gate.outcome]}",
        "",
        f"{gfm.plain(gate.summary)}. Limit: {limit_text(gate.metric, gate.max_regression_share)}.",
        "",
        *gfm.table(heads, [_cells(gate, case) for case in gate.cases]),
        "",
        f"BASE {gfm.code(gate.base)}, NEW {gfm.code(gate.new)}. {_HOW[gate.is_interleaved]}",
    ]
    if notes := list(_notes(gate)):
        lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join([*lines, *_what_differs(gate)]) + "\n"


def _notes(gate: Gate) -> Iterator[str]:
    for case in gate.cases:
        yield from (f"{gfm.code(case.name)}: {gfm.plain(note)}" for note in case.notes)
    yield from (f"Not gated: {gfm.code(each.what)}: {gfm.plain(each.why)}" for each in gate.left_out)
    if gate.distrust:
        yield f"{SIGN} 2 behind a number: two reasons to distrust it, of these:"
    yield from (gfm.plain(each.text) for each in gate.distrust)


def _what_differs(gate: Gate) -> list[str]:
    if not gate.differences:
        return []
    rows = [[each.kind, *map(gfm.code, each.cells())] for each in gate.differences]
    return gfm.folded(f"What differs ({len(rows)})", gfm.table(("", "what", "BASE", "NEW"), rows))


_HOW = {
    True: "Paired by block.",
    False: "The runs were not interleaved: whatever changed between them is in the ratios.",
}


def _cells(gate: Gate, case: GatedCase) -> list[str]:
    outcome = _marked(_SIGNS[case.outcome], case.marks) + (f": {gfm.plain(case.why)}" if case.why else "")
    names = [gfm.code(name) for name in (case.deployment, case.scenario, case.load)]
    values = [_marked(gfm.plain(side.text(gate.metric)), side.marks) for side in (case.base, case.new)]
    return [*names, *values, gfm.plain(case.regression_text(gate.metric) or gfm.NOTHING), outcome]

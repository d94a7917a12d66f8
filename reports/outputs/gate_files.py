"""The gate's result as files that others read: JUnit XML for CI systems, Markdown for a pull request.

JUnit: a case that fails is a `failure`; one that is inconclusive is `skipped` with its reason. An `error`
would be shown as a broken test, a pass would hide it; the exit code of `bench gate` (3) keeps the job from
passing. Elements and attributes are in the order of the Ant schema (JUnit.xsd), which all systems read.
"""

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from reports.checks.examine import SIGN
from reports.measures.metrics import metric_of
from reports.outputs import gfm
from reports.two_runs.gate import Gate, GatedCase

_SIGNS = {"pass": "✅ pass", "fail": "❌ fail", "inconclusive": "❔ inconclusive"}


def junit_text(gate: Gate) -> str:
    """Return a document with one suite and a test case for each case."""
    named = {"name": f"bench gate {gate.terms.metric}", "package": "bench", "id": "0"}
    # The schema has no place for an offset.
    made = {"timestamp": gate.created_at[:19], "hostname": "localhost", "tests": str(len(gate.cases))}
    failed, unsure = str(gate.count("fail")), str(gate.count("inconclusive"))
    counts = {"failures": failed, "errors": "0", "skipped": unsure, "time": "0"}
    root = Element("testsuites")
    suite = SubElement(root, "testsuite", {**named, **made, **counts})
    SubElement(suite, "properties")
    for case in gate.cases:
        _test_case(suite, gate, case)
    SubElement(suite, "system-out").text = _xml_text("\n".join(_told(gate)))
    SubElement(suite, "system-err")
    indent(root)
    return tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _test_case(suite: Element, gate: Gate, case: GatedCase) -> None:
    name = " ".join(_xml_text(case.case.name).split())
    classname = f"bench.gate.{gate.terms.metric}"
    element = SubElement(suite, "testcase", {"name": name, "classname": classname, "time": "0"})
    said = _xml_text(_said(gate, case))
    if case.outcome == "fail":
        SubElement(element, "failure", {"type": "regression", "message": said}).text = said
    elif case.outcome == "inconclusive":
        SubElement(element, "skipped", {"message": said}).text = said


def _told(gate: Gate) -> Iterator[str]:
    """Yield what a case that passes has no place for, then what the marks stand for, and the verdict."""
    yield f"BASE {gate.compared.a}, NEW {gate.compared.b}"
    yield from (f"{case.case.name}: {_said(gate, case)}" for case in gate.cases)
    yield from (f"Not gated: {each.what}: {each.why}" for each in gate.compared.left_out)
    yield from (f"Reason to distrust: {each.text}" for each in gate.compared.distrust)
    yield gate.summary


def _said(gate: Gate, case: GatedCase) -> str:
    """Return the values, regression and outcome of a case in one line."""
    base, new, worse = case.cells
    values = f"{gate.terms.metric} in {metric_of(gate.terms.metric).shown_unit}: BASE {base}, NEW {new}"
    why = [f"{case.outcome}: {case.why}"] if case.why else []
    return "; ".join([values, f"NEW worse by {worse}, limit {gate.limit_text}", *why, *case.case.notes])


def _xml_text(value: str) -> str:
    """Return text without what XML cannot hold, escaped or not."""
    return re.sub(gfm.NOT_XML, "\ufffd", value)


def markdown_text(gate: Gate) -> str:
    """Return a heading, one table and what a reviewer has to know; names stand in code spans."""
    unit, compared = metric_of(gate.terms.metric).shown_unit, gate.compared
    heads = ("deployment", "scenario", "load", f"BASE, {unit}", f"NEW, {unit}", "NEW worse by", "")
    lines = [
        f"### bench gate: {_SIGNS[gate.outcome]}",
        "",
        f"{gfm.plain(gate.summary)}. Limit: {gate.limit_text}.",
        "",
        *gfm.table(heads, map(_cells, gate.cases)),
        "",
        f"BASE {gfm.code(compared.a)}, NEW {gfm.code(compared.b)}. {gfm.plain(compared.how)}",
        "",
        *(f"- {note}" for note in _notes(gate)),
    ]
    if compared.differences:
        rows = [[each.kind, *map(gfm.code, each.cells())] for each in compared.differences]
        lines += gfm.folded(f"What differs ({len(rows)})", gfm.table(("", "what", "BASE", "NEW"), rows))
    return "\n".join(lines).rstrip() + "\n"


def _cells(case: GatedCase) -> list[str]:
    names = map(gfm.code, (case.case.deployment, case.case.scenario, case.case.load))
    outcome = _SIGNS[case.outcome] + (f": {gfm.plain(case.why)}" if case.why else "")
    return [*names, *map(gfm.plain, case.cells), outcome]


def _notes(gate: Gate) -> Iterator[str]:
    for each in gate.cases:
        yield from (f"{gfm.code(each.case.name)}: {gfm.plain(note)}" for note in each.case.notes)
    for out in gate.compared.left_out:
        yield f"Not gated: {gfm.code(out.what)}: {gfm.plain(out.why)}"
    if gate.compared.distrust:
        yield f"{SIGN} 2 behind a number: two reasons to distrust it, of these:"
    yield from (gfm.plain(each.text) for each in gate.compared.distrust)

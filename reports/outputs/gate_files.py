"""The gate's result as files: JUnit XML for CI systems, Markdown for a pull request.

In JUnit a case that fails is a `failure`, and an inconclusive one is `skipped` with its reason: an `error`
would be shown as a broken test, and a pass would hide it. The exit code of `bench gate` (3) keeps the job
from passing. Elements and attributes are in the order of the Ant schema (JUnit.xsd), which all systems read.
"""

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from serving_bench.reports.checks.examine import SIGN
from serving_bench.reports.outputs.as_markdown import NOT_XML, code, folded, plain, table
from serving_bench.reports.two_runs.gate import Gate, GatedCase

_HEADS = ("deployment", "scenario", "load", "BASE", "NEW", "NEW against BASE", "")
_SIGNS = {"pass": "✅ pass", "fail": "❌ fail", "inconclusive": "❔ inconclusive"}


def junit_text(gate: Gate) -> str:
    """Return a JUnit document with one suite, and a test case for each of the gate's cases."""
    about = {
        "name": f"bench gate {gate.terms.metric}",
        "package": "bench",
        "id": "0",
        # The schema does not allow an offset.
        "timestamp": gate.created_at[:19],
        "hostname": "localhost",
        "tests": str(len(gate.cases)),
        "failures": str(gate.count("fail")),
        "errors": "0",
        "skipped": str(gate.count("inconclusive")),
        "time": "0",
    }
    root = Element("testsuites")
    suite = SubElement(root, "testsuite", about)
    SubElement(suite, "properties")
    for case in gate.cases:
        name = " ".join(_xml_text(case.case.name).split())
        named = {"name": name, "classname": f"bench.gate.{case.rule.name}", "time": "0"}
        element, text = SubElement(suite, "testcase", named), _xml_text(_said(case))
        if case.outcome == "fail":
            SubElement(element, "failure", {"type": "regression", "message": text}).text = text
        elif case.outcome == "inconclusive":
            SubElement(element, "skipped", {"message": text}).text = text
    whole = [
        f"BASE {gate.compared.a}, NEW {gate.compared.b}",
        # A test case that passes has no place for its values.
        *(f"{case.case.name}: {_said(case)}" for case in gate.cases),
        *_notes(gate),
        gate.summary,
    ]
    SubElement(suite, "system-out").text = _xml_text("\n".join(whole))
    SubElement(suite, "system-err")
    indent(root)
    return tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _said(case: GatedCase) -> str:
    base, new, change = case.cells
    sentence = f"{case.rule.text}; BASE {base}, NEW {new}; NEW against BASE: {change}"
    return f"{sentence}; {case.outcome}: {case.why}" if case.why else sentence


def _xml_text(value: str) -> str:
    return re.sub(NOT_XML, "\ufffd", value)


def markdown_text(gate: Gate) -> str:
    """Return a heading, a table for each rule, and the notes that a reviewer needs."""
    compared = gate.compared
    rows = [[each.kind, *map(code, each.cells())] for each in compared.differences]
    unlike = folded(f"What differs ({len(rows)})", table(("", "what", "BASE", "NEW"), rows))
    blocks = [
        f"### bench gate: {_SIGNS[gate.outcome]}",
        f"{plain(gate.summary)}.",
        *(
            f"{plain(rule.text)}:\n\n{table(_HEADS, map(_cells, cases))}"
            for rule, cases in gate.by_rule.items()
        ),
        f"BASE {code(compared.a)}, NEW {code(compared.b)}. {plain(compared.how)}",
        "\n".join(f"- {plain(note)}" for note in _notes(gate)),
        unlike if rows else "",
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _cells(case: GatedCase) -> list[str]:
    return [
        *map(code, (case.case.deployment, case.case.scenario, case.case.load)),
        *map(plain, case.cells),
        _SIGNS[case.outcome] + (f": {plain(str(case.why))}" if case.why else ""),
    ]


def _notes(gate: Gate) -> Iterator[str]:
    yield from (f"{each.case.name}: {note}" for each in gate.cases for note in each.case.notes)
    yield from (f"Not gated: {each.what}: {each.why}" for each in gate.compared.left_out)
    if gate.compared.distrust:
        marked = f"{SIGN} 2 after a change: two of these reasons not to compare it apply:"
        yield marked if gate.compared.is_marked else "Reasons to distrust:"
    yield from (each.text for each in gate.compared.distrust)

"""The guard: whether the machine was fit to measure, before each cell and in its window."""

from __future__ import annotations

from collections.abc import Sequence

from reports.charts import Section
from reports.frames import Run
from reports.markup import Html, join, paragraph, plural, table

_LOOKS_FOR = (
    "other processes on the device, memory that is not free again, throttling, low clocks, a lost device, "
    "other programs or other guests of the host on the processor, swapping, a full disk, few open files"
)
_MEANS = {
    "mark": "A cell on an unfit machine is measured, and suspect.",
    "strict": "A cell on an unfit machine is refused; one whose window was disturbed is invalid.",
}


def section(run: Run) -> Section | None:
    """None for runs of an older bench, which had none."""
    if run.record.schema_version < 4:
        return None
    mode = _given(run, "guard", "mark")
    if mode == "off":
        return Section("Guard", paragraph("guard=off: nobody looked whether the machine was fit."))
    rows: list[Sequence[Html | str]] = [
        [
            f"{cell.number:03d}",
            cell.label,
            cell.load_label,
            str(cell.planned.repeat + 1),
            found.when,
            found.text,
        ]
        for cell in run.planned_cells
        for found in (cell.record.guard if cell.record else ())
    ]
    looked = sum(cell.record is not None for cell in run.planned_cells)
    touched = len({row[0] for row in rows})
    said = paragraph(
        f"guard={mode} looked at {plural(looked, 'cell')}, before it and over its window; "
        f"{plural(touched, 'cell') + ' had' if touched else 'none had'} something to report. {_MEANS[mode]} "
        f"It looks for {_LOOKS_FOR}; what a machine does not tell is no finding."
    )
    columns = ["cell", "deployment", "load", "start", "when", "what"]
    return Section("Guard", join([said, table(columns, rows, "words")] if rows else [said]))


def _given(run: Run, key: str, default: str) -> str:
    values = run.record.settings.get(key)
    return values[0] if values else default

"""The guard: whether the machine was fit to measure, before each cell and in its window."""

from reports.data.run import Run
from reports.measures.written import plural
from reports.page.charts import Section
from reports.page.markup import Of, Row, join, paragraph, table

_LOOKS_FOR = (
    "other processes on the device, memory that is not free again, throttling, low clocks, a lost device, "
    "other programs or other guests of the host on the processor, swapping, a full disk, few open files"
)
_MEANS = {
    "mark": "A cell on an unfit machine is measured, and suspect.",
    "strict": "A cell on an unfit machine is refused; one whose window was disturbed is invalid.",
}


def section(run: Run) -> Section | None:
    """Return what the guard found. None if no cell came so far."""
    looked = [cell for cell in run.planned_cells if cell.record and cell.record.guard_mode is not None]
    if not looked:
        is_off = any(cell.record for cell in run.planned_cells)
        text = "Nobody looked whether the machine was fit (guard=off, or no cell came so far)."
        return Section("Guard", paragraph(text)) if is_off else None
    modes = list(dict.fromkeys(cell.record.guard_mode for cell in looked if cell.record))
    rows = [
        Row(
            [
                f"{cell.number:03d}",
                cell.label,
                cell.load_label,
                str(cell.planned.repeat + 1),
                found.when,
                found.text,
            ],
            Of(cell.label, cell.load_label, start=cell.planned.repeat + 1),
        )
        for cell in run.planned_cells
        for found in (cell.record.guard if cell.record else ())
    ]
    touched = len({row.cells[0] for row in rows})
    means = " ".join(_MEANS[mode] for mode in modes if mode in _MEANS)
    had = f"{plural(touched, 'cell')} had" if touched else "none had"
    said = paragraph(
        f"guard={' and '.join(map(str, modes))} looked at {plural(len(looked), 'cell')}, before their load "
        f"and, where it was played, over the window; {had} something to report. {means} It looks for "
        f"{_LOOKS_FOR}; what a machine does not tell is no finding."
    )
    columns = ["cell", "deployment", "load", "start", "when", "what"]
    return Section("Guard", join([said, table(columns, rows, "words", "Guard")] if rows else [said]))

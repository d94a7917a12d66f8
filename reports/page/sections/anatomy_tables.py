"""Tables of what servers' memory is made of: parts with their sources, the KV cache, stages, expectations.

`found` is the anatomies of each deployment's starts by its label, `shown` how the label looks.
"""

from collections.abc import Mapping, Sequence

from reports.measures.anatomy import (
    GRAPHS,
    KV_CACHE,
    KV_COPIES,
    PARTS,
    PROGRAM,
    REST,
    STAGES,
    WEIGHTS,
    WORKSPACE,
    Anatomy,
    Part,
    expectations,
    mean,
    mean_part,
    mean_size,
    mean_total,
)
from reports.measures.written import NOTHING, number
from reports.page.markup import Html, Of, Row, join, note, paragraph, table, tag

GIB = 2.0**-30
TITLES = {
    WEIGHTS: "weights",
    KV_CACHE: "KV cache",
    KV_COPIES: "KV copies",
    GRAPHS: "graphs",
    WORKSPACE: "workspace",
    PROGRAM: "program",
    REST: "the rest",
}
Starts = Sequence[Anatomy]
SOURCES = note(
    "GiB. Said: by the server, in its log or on its pages. Measured step: what the memory grew by between "
    "two stages of the start. Reckoned: from the model's shape, else from the size of the weights' files.",
    "Program is what was there when the weights began to be read (reckoned, where "
    "that was seen too late: what the other parts leave of the first answers), workspace (said or not) what "
    "was taken by the first answers beyond all other parts. KV copies: states of conversations that the "
    "server saves beside its KV cache, under load. A checkpoint's tokenizer, some 30 MB, is among the "
    "weights' files. The rest is growth under load, which nothing explains.",
)


def gib(size_bytes: float | None, digits: int = 2) -> str:
    return number(None if size_bytes is None else size_bytes * GIB, digits)


def parts_table(found: Mapping[str, Starts], shown: Mapping[str, Html]) -> Html:
    names = [name for name in PARTS if any(mean_part(each, name) for each in found.values())]
    columns = ["deployment", *(TITLES[name] for name in names), "total", "needed", "all but the rest"]
    rows: list[Row] = []
    for name, each in found.items():
        explained = 1.0 - mean_size(each, REST) / mean_total(each)
        rows.append(
            Row(
                [
                    shown[name],
                    *(_part_cell(mean_part(each, part), is_host=each[0].is_host) for part in names),
                    join([gib(mean_total(each), 3), _range([a.total_bytes for a in each])]),
                    gib(mean([a.needed_bytes for a in each]), 3),
                    f"{100 * explained:.1f} %",
                ],
                Of(name),
            )
        )
    return table(columns, rows, "plain anatomy", "Memory by part")


def _part_cell(part: Part | None, *, is_host: bool) -> Html | str:
    if part is None:
        return tag("span", NOTHING, class_="none")
    said = [_below(source, size, len(part.sources)) for source, size in part.sources.items()]
    if part.cut_bytes * GIB >= 0.0005:
        word = "reserved, not yet touched" if is_host else "said, but not measured"
        said.append(tag("span", f"+ {gib(part.cut_bytes, 3)} {word}", class_="range"))
    return join([gib(part.size_bytes, 3), *said])


def _below(source: str, size: float, count: int) -> Html:
    return tag("span", source if count == 1 else f"{source} {gib(size, 3)}", class_="range")


def _range(sizes: Sequence[float]) -> Html | str:
    low, high = gib(min(sizes), 3), gib(max(sizes), 3)
    return "" if low == high else tag("span", f"{low}–{high}", class_="range")


def kv_parts(found: Mapping[str, Starts], shown: Mapping[str, Html]) -> list[Html]:
    """The KV cache: reserved, needed, and how far it goes. Nothing where no server has a pool."""
    rows = [
        Row(_kv_cells(shown[name], each), Of(name))
        for name, each in found.items()
        if each[0].kv.pool.tokens is not None or each[0].kv.pool.size_bytes is not None
    ]
    if not rows:
        return []
    columns = [
        "deployment", "reserved GiB", "reserved tokens", "KiB per token", "tokens per GiB",
        "most tokens in flight", "needed GiB", "most in use % (server)", "longest conversation",
        "users that fit",
    ]  # fmt: skip
    about = note(
        "Reserved: the pool as the server says. Users that fit: reserved tokens / the longest conversation "
        "of the scenario, over all deployments.",
        "Per token: of the pool, and in grey of one more token by the model's shape "
        "(no sliding window is full). In flight: prompt and answer so far of all requests at "
        "once, the most in any window; a prefix that requests share counts for each. Most in use is "
        "counted by the server in whole blocks, so it may be more than was in flight. "
        "Only cells that count.",
    )
    title = "KV cache: reserved and needed"
    return [tag("h3", title), about, table(columns, rows, "plain anatomy", title)]


def _kv_cells(name: Html, each: Starts) -> list[Html | str]:
    """A deployment's row: its pool as the first start has it, the most that any start needed."""
    pool = each[0].kv.pool
    need = max((a.kv for a in each), key=lambda kv: kv.peak_tokens or 0.0)
    used = [a.kv.used_share for a in each if a.kv.used_share is not None]
    longest = next((a.kv.conversations for a in each if a.kv.conversations), None)
    users = [a.kv.users for a in each if a.kv.users is not None]
    return [
        name,
        gib(pool.size_bytes, 3),
        number(pool.tokens, 0),
        _of_two(pool.per_token_bytes, pool.reckoned_per_token_bytes, 1 / 1024, 1),
        _of_two(_per_gib(pool.per_token_bytes), _per_gib(pool.reckoned_per_token_bytes), 1.0, 0),
        _with_note(number(need.peak_tokens, 0), need.peak_load),
        gib(need.needed_bytes, 3),
        number(100 * max(used), 1) if used else NOTHING,
        _with_note(number(longest.tokens, 0), _which(longest.n, longest.is_largest)) if longest else NOTHING,
        f"{min(users):,}" if users else NOTHING,
    ]


def _per_gib(per_token_bytes: float | None) -> float | None:
    return 2**30 / per_token_bytes if per_token_bytes else None


def _of_two(first: float | None, second: float | None, scale: float, digits: int) -> Html:
    shown = [None if value is None else value * scale for value in (first, second)]
    return _with_note(number(shown[0], digits), None if shown[1] is None else number(shown[1], digits))


def _with_note(main: str, note: str | None) -> Html:
    return join([main, tag("span", note, class_="range") if note else ""])


def _which(n: int, is_largest: bool) -> str:
    return f"the largest of {n:,}" if is_largest else f"p95 of {n:,}"


def stages_note(found: Mapping[str, Starts]) -> Html:
    each = [a for starts in found.values() for a in starts]
    whose = "machine" if all(a.is_host for a in each) else "device"
    return note(
        f"GiB, means over starts. Before: all that was in use of the {whose} before the start; it is in no "
        "other column.",
        "First answers: after the first generations. Then after each load that counts, and the highest. "
        f"{_left_note(each)}A start's stages are seen up to 20 ms late, plus the time that reading takes."
        f"{_late_note(each)}{_touched_note(each)}",
    )


def _left_note(each: Starts) -> str:
    return (
        "Left on the device: what it had in use more than before once the server had stopped, whoever had "
        "it. "
        if _is_left_told(each)
        else ""
    )


def _is_left_told(each: Starts) -> bool:
    """On a host it would be what all other programs took or gave back meanwhile."""
    return any(not a.is_host and a.left_bytes is not None for a in each)


def _late_note(each: Starts) -> str:
    is_late = any(
        "weights_begin" in a.stages and PROGRAM in a.parts and "reckoned" in a.parts[PROGRAM].sources
        for a in each
    )
    return (
        " Where program is reckoned, some weights were in already at weights begin: it shows more than the "
        "program."
        if is_late
        else ""
    )


def _touched_note(each: Starts) -> str:
    is_host = any(a.is_host for a in each)
    return (
        " A page of a mapped file counts once it is touched: weights may come after weights loaded."
        if is_host
        else ""
    )


def stages_table(found: Mapping[str, Starts], shown: Mapping[str, Html]) -> Html:
    stages = [name for name in STAGES if any(name in a.stages for each in found.values() for a in each)]
    loads = list(dict.fromkeys(load for each in found.values() for a in each for load in a.cells))
    is_left_told = _is_left_told([a for each in found.values() for a in each])
    columns = [
        "deployment",
        "before",
        *(STAGES[name] for name in stages),
        *(f"after {load}".replace(" u", "\u00a0u") for load in loads),
        "highest",
        *(["left on the device"] if is_left_told else []),
    ]
    rows = [
        Row(
            [
                shown[name],
                gib(mean([a.before_bytes for a in each]), 3),
                *(gib(mean([a.stages.get(stage) for a in each]), 3) for stage in stages),
                *(gib(mean([a.cells.get(load) for a in each]), 3) for load in loads),
                gib(mean_total(each), 3),
                *(
                    [gib(mean([None if a.is_host else a.left_bytes for a in each]), 3)]
                    if is_left_told
                    else []
                ),
            ],
            Of(name),
        )
        for name, each in found.items()
    ]
    return table(columns, rows, "plain anatomy", "Memory by stage")


def expected_parts(found: Mapping[str, Starts], shown: Mapping[str, Html]) -> list[Html]:
    """What `bench fit` reckons beside what was measured; nothing where it reckoned nothing."""
    rows = [
        Row(
            [
                shown[name],
                each.part,
                gib(each.expected_bytes, 3),
                gib(each.measured_bytes, 3),
                f"{round(100 * each.error_share, 1) + 0.0:+.1f} %",  # no -0.0
                each.source,
            ],
            Of(name),
        )
        for name, starts in found.items()
        for each in expectations(starts)
    ]
    if not rows:
        return []
    note = paragraph(
        "GiB. Expected: what bench fit reckons from the model's shape alone, before anything is started. "
        "Error: expected / measured - 1. The total has what it assumes for all else, the program included."
    )
    columns = ["deployment", "part", "expected", "measured", "error", "measured by"]
    title = "Expected by bench fit"
    return [tag("h3", title), note, table(columns, rows, "plain expected", title)]

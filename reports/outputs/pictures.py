"""Charts of a run as PNG and SVG files that stand alone, with title, line names and note inside.

The page's own scripts draw them in an installed headless Chromium, and reports/page/picture.js puts a frame
around them. No port is opened and nothing is fetched.
"""

import base64
import html
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from serving_bench.harness.errors import BenchError, MissingError, UserError
from serving_bench.reports.data import Run
from serving_bench.reports.page.document import REPORT, document
from serving_bench.reports.page.looks import Html, join, packed_json, tag
from serving_bench.reports.page.parts import Chart
from serving_bench.reports.page.sections import sections_of
from serving_bench.reports.words.described import question

NO_CHARTS = "no charts: no cell has a value"
ALL = "all"
VARIABLE = "BENCH_CHROMIUM"
_APPLICATIONS = "/Applications/{0}.app/Contents/MacOS/{0}"
_PROGRAMS = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge",
    "msedge", *map(_APPLICATIONS.format, ("Google Chrome", "Chromium", "Microsoft Edge")),
)  # fmt: skip
# Width in CSS pixels, and how many pixels of a PNG each one is.
WIDTH_PX, SCALE = 900, 2
_FLAGS = (
    "--headless", "--dump-dom", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--no-default-browser-check", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-extensions", "--disable-breakpad", "--disable-crash-reporter",
    "--disable-dev-shm-usage", "--force-color-profile=srgb", "--force-device-scale-factor=1",
    # Light, as Chromium numbers it (third_party/blink/public/mojom/css/preferred_color_scheme.mojom).
    f"--window-size={WIDTH_PX},900", "--blink-settings=preferredColorScheme=1",
)  # fmt: skip
# Limits for a busy machine with one core; elsewhere it takes 3 s, and 0.1 s a chart.
_BEGIN_S, _EACH_S = 120.0, 5.0


def charts_of(run: Run) -> dict[str, Chart]:
    topics = [topic for section in sections_of(run) for topic in section.topics]
    return {chart.id: chart for topic in topics for chart in topic.charts}


def chosen(run: Run, name: str) -> list[Chart]:
    """Return the chart with that id, or all of them. Raises UserError if there is none."""
    charts = charts_of(run)
    if not charts:
        raise UserError(f"--chart {name}: {NO_CHARTS}")
    if name != ALL and name not in charts:
        raise UserError(f"--chart {name}: no such chart; --charts lists the ids")
    return list(charts.values()) if name == ALL else [charts[name]]


def pictures(run: Run, charts: Sequence[Chart], format_: str) -> dict[str, bytes]:
    """Return each chart as the contents of a PNG or SVG file, by its id.

    Raises MissingError without a usable Chromium, BenchError if it fails or takes too long.
    """
    words = [_words(run, chart) for chart in charts]
    wanted = {"format": format_, "width": WIDTH_PX, "scale": SCALE, "charts": words}
    # Each chart is as wide as its picture, without the frame's margins.
    places = tag("div", *map(Html, charts), style=f"width:{WIDTH_PX - 32}px")
    body = join([places, packed_json("pictures", wanted)])
    styles, scripts = REPORT
    page = document(question(run), body, charts, (styles, (*scripts, "picture.js")))
    drawn = _drawn(page, _BEGIN_S + _EACH_S * len(charts))
    if isinstance(drawn, str):
        raise BenchError(f"the chart could not be drawn: {drawn}")
    return {
        chart.id: base64.b64decode(each) if format_ == "png" else each.encode()
        for chart, each in zip(charts, drawn, strict=True)
    }


def _words(run: Run, chart: Chart) -> dict[str, str]:
    """Return the text around a chart.

    The foot says where it is from, since a picture is shared without its page.
    """
    about = [each for each in (chart.of.deployment, chart.of.load) if each and each not in chart.title]
    return {
        "id": chart.id,
        "title": chart.title,
        "quantity": chart.what if chart.finding else "",
        "note": chart.note,
        "foot": " · ".join([*about, question(run), f"run {run.record.run_id}, {run.record.created_at[:10]}"]),
    }


# --- Chromium --------------------------------------------------------------------------------------


def program() -> str:
    """Return the path of a Chromium. Raises MissingError if there is none."""
    named = os.environ.get(VARIABLE)
    if program_path := next(filter(None, map(shutil.which, [named] if named else _PROGRAMS)), None):
        return program_path
    if named:
        raise MissingError(f"{VARIABLE}={named}: no such program")
    raise MissingError(
        "pictures need an installed Chromium, Chrome or Edge on PATH (Debian: apt install chromium), or its "
        f"path in {VARIABLE}"
    )


def _drawn(page: str, limit_s: float) -> Any:
    """Return the JSON that the page shows once it has loaded. Leaves no process behind."""
    path = program()
    # Chromium does not start as root with its sandbox.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="bench-chromium-", ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "page.html"
        file.write_text(page, encoding="utf-8")
        argv = [path, *_FLAGS, *sandbox, f"--user-data-dir={folder}/profile", file.as_uri()]
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0
        ) as process:
            try:
                text = process.communicate(timeout=limit_s)[0].decode()
            except subprocess.TimeoutExpired as late:
                raise BenchError(f"{path} did not answer in time") from late
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    match = re.search("<pre>(.*)</pre>", text, re.DOTALL)
    if match is None:
        raise MissingError(
            f"{path} ended before it had drawn; give the path of another Chromium in {VARIABLE}"
        )
    return json.loads(html.unescape(match[1]))

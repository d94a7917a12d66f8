"""Measures the cost of a long run's report: time and memory of `bench report`, the size of its page, and how
long a browser takes to open it.

    python benchmarks/report.py                              the two runs of RUNS
    python benchmarks/report.py --cells 180 --loads 6 --repeats 3 --requests 18000
    python benchmarks/report.py --keep DIR                   make the runs there once, and use them again

README.md has the results.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import script
from synthetic import Size, make_run

from serving_bench.harness.errors import BenchError, UserError

_CHECKOUT = Path(__file__).parents[1]
_BROWSER_FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1280,900"
)
# Returns seconds since the navigation began: when the page was loaded and its script ready, and when the
# first chart that is not folded was drawn, for a reader who scrolls to it at once.
_OPENED = """
    const done = arguments[0];
    const chart = [...document.querySelectorAll('.chart')].find(
      (each) => each.offsetParent && !each.closest('details:not([open])'));
    const drawn = () => chart.querySelector('svg.main-svg .trace, svg.main-svg .point');
    const look = (ready) => drawn() ? done([ready, performance.now() / 1e3]) : setTimeout(look, 5, ready);
    bench.ready.then(() => {
      const ready = performance.now() / 1e3;
      if (!chart) { done([ready, null]); return; }
      chart.scrollIntoView();
      look(ready);
    });"""
OPENINGS = 5
# Many requests in long cells, and many short cells.
RUNS = (Size(), Size(cells=300, requests=60_000, chunks=100, loads=5, repeats=6))


@dataclass(frozen=True)
class Measured:
    """The cost of one run's report. `cpu_s`: user and system time of all its threads.

    `open_s`: from the beginning of the navigation until the page can be read and used. `chart_s`: until its
    first chart was drawn, scrolled to at once. Both are medians of OPENINGS, and None without a browser.
    """

    size: str
    report_s: float
    cpu_s: float
    peak_bytes: int
    page_bytes: int
    open_s: float | None = None
    chart_s: float | None = None


def measure(run_dir: Path, size: Size) -> Measured:
    """Run `bench report` as a user does, in a process of its own, with its modules compiled before."""
    page, bench = run_dir / "report.html", [sys.executable, "-m", "serving_bench"]
    argv = [*bench, "report", str(run_dir), "--output", str(page)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(
        [*bench, "report", "none"], cwd=_CHECKOUT, env=environment, capture_output=True, check=False
    )
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(argv, cwd=_CHECKOUT, env=environment, stdout=subprocess.DEVNULL)
    peak_bytes = 0
    while process.poll() is None:
        peak_bytes = max(peak_bytes, _peak_bytes(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise BenchError(f"bench report ended with code {process.returncode}")
    took_s, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(size.name, took_s, cpu_s, peak_bytes, page.stat().st_size, *opened_s(page))


def _peak_bytes(pid: int) -> int:
    """Return the highest resident memory of a process so far, by the kernel's account (Linux)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def opened_s(page: Path) -> tuple[float | None, float | None]:
    """Return `open_s` and `chart_s` of Measured. Return None twice, and say so, without a browser."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        driver = None
    if not (browser and driver):
        print("no chromium with chromedriver and selenium here: opening is not measured", file=sys.stderr)
        return None, None
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in _BROWSER_FLAGS.split():
        options.add_argument(flag)
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        seen = [_open_s(chrome, page) for _ in range(OPENINGS)]
        opened, drawn = zip(*seen, strict=True)
        return statistics.median(opened), None if None in drawn else statistics.median(drawn)
    finally:
        chrome.quit()


def _open_s(chrome: Any, page: Path) -> tuple[float, float | None]:
    chrome.get("about:blank")
    chrome.set_script_timeout(60)
    chrome.get(page.as_uri())
    ready_s, drawn_s = chrome.execute_async_script(_OPENED)
    return ready_s, drawn_s


HEAD = """\
| run | bench report | CPU | peak RSS | page | opens in | first chart |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |"""


def markdown(found: Measured) -> str:
    """Return a row of README.md's table."""
    opened, drawn = ("-" if each is None else f"{each:.2f} s" for each in (found.open_s, found.chart_s))
    return (
        f"| {found.size} | {found.report_s:.1f} s | {found.cpu_s:.1f} s | {found.peak_bytes / 1e9:.2f} GB "
        f"| {found.page_bytes / 1e6:.1f} MB | {opened} | {drawn} |"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--cells", type=int, help="deployments x loads x repeats; 100")
    parser.add_argument("--requests", type=int, help="of all cells; 1,000,000")
    parser.add_argument("--chunks", type=int, help="of each request; 200")
    parser.add_argument("--loads", type=int, help="of each start; 2")
    parser.add_argument("--repeats", type=int, help="starts of each deployment; 5")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="make the runs there, or use what is there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured there as JSON")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    asked = {name: value for name, value in vars(given).items() if name in asdict(Size()) and value}
    sizes = [Size(**asked)] if asked else RUNS
    found = []
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-report-") as folder:
        for size in sizes:
            run_dir = (given.keep or Path(folder)) / f"{size.cells}-{size.requests}"
            _made(run_dir, size)
            found.append(measure(run_dir, size))
            print(markdown(found[-1]), flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(each) for each in found], indent=1) + "\n")


def _made(run_dir: Path, size: Size) -> None:
    """Make the run, unless it exists already."""
    told = run_dir / "size.json"
    if told.is_file():
        if json.loads(told.read_text()) != asdict(size):
            raise UserError(f"{run_dir}: contains a run of another size; give another --keep DIR")
        return
    if run_dir.exists() and any(run_dir.iterdir()):
        raise UserError(f"{run_dir}: is not empty, and is not a run that this program made")
    print(f"making a run of {size.name}", file=sys.stderr, flush=True)
    make_run(run_dir, size)
    told.write_text(json.dumps(asdict(size)) + "\n")


if __name__ == "__main__":
    script.run(main)

"""Whether a sample of latencies has two clearly separated humps. Pure.

The statistic is the valley of a kernel density of the logarithms (Gaussian kernel, Silverman's rule of thumb
for its width, 1986: 0.9 min(s, IQR / 1.34) n^(-1/5)) against the lower of the two humps beside it. Its limits
are chosen by simulation (tests/reports/stats/test_reports_humps.py): a page looks at many cells and
turns, so of samples with one hump, lognormal, exponential or heavier in the tail, at most one in two hundred
is called two-humped. That width smooths two humps that are close: it misses some rather than see too many.
"""

import numpy as np

# Fewer requests have valleys by chance: of 50 from a heavy tail 3 %.
REQUESTS_NEEDED = 100
# The valley's density, as a share of the lower hump's: at most this.
VALLEY_SHARE = 0.5
# Each hump holds this share of the requests, and its middle lies this far from the other's.
HUMP_SHARE = 0.1
APART = 1.25
_GRID = 256  # points of the density


def humps(seconds: np.ndarray) -> tuple[float, float, float] | None:
    """Return the medians of the two humps with the deepest valley between them, and the upper one's share.

    None where there are no two. Values of 0 or less are left out.
    """
    values = np.sort(seconds[seconds > 0])
    if len(values) < REQUESTS_NEEDED:
        return None
    logs = np.log(values)
    quartiles = np.percentile(logs, [25, 75])
    width = 0.9 * min(logs.std(ddof=1), float(np.diff(quartiles)[0]) / 1.34) * len(logs) ** -0.2
    if width <= 0:
        return None
    counts, edges = np.histogram(logs, bins=_GRID)
    grid = (edges[:-1] + edges[1:]) / 2
    reach = np.arange(1 - _GRID, _GRID) * (edges[1] - edges[0])
    density = np.convolve(counts, np.exp(-0.5 * (reach / width) ** 2), mode="valid")
    # At each point the lower of the highest densities to its left and to its right: the hump that it parts.
    beside = np.minimum(np.maximum.accumulate(density), np.maximum.accumulate(density[::-1])[::-1])
    upper = 1 - np.searchsorted(logs, grid) / len(logs)
    depth = np.where((upper >= HUMP_SHARE) & (upper <= 1 - HUMP_SHARE), density / beside, 1.0)
    valley = int(np.argmin(depth))
    low_s, high_s = (float(np.median(own)) for own in np.split(values, [np.searchsorted(logs, grid[valley])]))
    if depth[valley] > VALLEY_SHARE or high_s < APART * low_s:
        return None
    return low_s, high_s, float(upper[valley])

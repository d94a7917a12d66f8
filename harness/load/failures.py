"""How many requests load.max_failed looks at: what the load process stops by, and the record says."""

from __future__ import annotations

# The last ones of a load process that ended, cancelled ones left out; with fewer than the second number it
# does not judge.
LAST_REQUESTS = 100
FEWEST_REQUESTS = 20

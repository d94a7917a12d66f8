"""Generate what users say and when: pure, seeded generators of conversations, one file each."""

from harness.contracts import Scenario
from scenarios import chat_multi_turn, file, fixed, trace

SCENARIOS: dict[str, Scenario] = {
    each.SCENARIO.name: each.SCENARIO for each in (chat_multi_turn, file, fixed, trace)
}

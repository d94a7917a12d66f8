"""Generate what users say and when: pure, seeded generators of conversations, one file each."""

from harness.contracts import Scenario
from scenarios import chat_multi_turn, file, trace

SCENARIOS: dict[str, Scenario] = {
    "chat_multi_turn": chat_multi_turn.SCENARIO,
    "file": file.SCENARIO,
    "trace": trace.SCENARIO,
}

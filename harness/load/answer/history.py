"""Say what goes into a conversation's history after a turn. Pure."""

import msgspec

from serving_bench.harness.contracts import Form, Message, ToolCall, Turn
from serving_bench.harness.load.answer.chat import Decoded


def answer_message(turn: Turn, decoded: Decoded, *, is_scripted: bool) -> Message:
    """Return what goes into the history after a turn: the model's answer, or the scripted one.

    If the turn has a call, the model's first call of a known tool with a JSON object as arguments goes in,
    else the turn's own.
    """
    if is_scripted and (turn.answer is not None or turn.call):
        return Message("assistant", turn.answer or "", turn.call)
    if turn.call is None:
        return Message("assistant", decoded.text)
    whole = (call for call in decoded.calls if _is_whole(call, turn.form))
    return Message("assistant", decoded.text, next(whole, turn.call))


def _is_whole(call: ToolCall, form: Form | None) -> bool:
    """Return whether a chat template can read the call and a tool of the form can answer it."""
    if form is None or call.name not in {tool.name for tool in form.tools}:
        return False
    try:
        return isinstance(msgspec.json.decode(call.arguments), dict)
    except (ValueError, RecursionError):
        return False

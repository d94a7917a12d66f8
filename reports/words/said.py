"""An answer in words: what stands out of it, the rest, and the same in one short line. Knows no run."""

from dataclasses import dataclass

HEADLINE_AT_MOST = 160


@dataclass(frozen=True)
class Said:
    """`lead` names what comes out of it ("Serve vllm awq", "No winner"); `text` goes on in full sentences.

    `headline` says it in a few words; without it the first sentence does. `unless`: when another one should
    be served. `note`: what would tell more.
    """

    lead: str
    text: str
    headline: str = ""
    unless: str = ""
    note: str = ""

    @property
    def plain(self) -> str:
        return " ".join(filter(None, (f"{self.lead}.", self.text, self.unless, self.note)))


def clipped(text: str, most: int) -> str:
    """At most so many characters: cut between words, with an ellipsis in place of the rest."""
    if len(text) <= most:
        return text
    head, space, _ = text[:most].rpartition(" ")
    return f"{(head if space and len(head) > most // 2 else text[: most - 1]).rstrip(' ,;:(')}…"


def at(load: str) -> str:
    """`at 4 users`, `with the trace at x2`: a load's label as a sentence goes on with it."""
    return f"with the {load.replace('trace x', 'trace at x')}" if load.startswith("trace") else f"at {load}"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]

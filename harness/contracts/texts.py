"""Text from outside, as a terminal or a file may show it."""


def inert(words: str, keep: str = "") -> str:
    """Return the words without control characters and marks of direction, which could move the cursor, but
    for those to keep."""
    return "".join(each if each.isprintable() or each in keep else " " for each in words)

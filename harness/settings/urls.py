"""Refuse a URL that may hold a secret, before any message can repeat it."""

import re

from harness.errors import UserError

_KEY_IS = "engine.api_key_env names the variable that holds a key"


def refuse_secrets(word: str) -> None:
    """Raise UserError if the URL in a word has a user, a password, a query or a fragment.

    `word`: key=value as somebody wrote it, whatever its form. The message repeats nothing of its value.
    """
    key = word.partition("=")[0]
    if "://" not in word and "url" not in key.lower():
        return
    name = key if re.fullmatch(r"[\w.]+", key) else "a URL"
    mark = re.search(r"[@?#]", word)
    if mark and mark[0] == "@":
        raise UserError(
            f"{name}: has a user or password in it, which would be stored with the run; {_KEY_IS}"
        )
    if mark:
        raise UserError(
            f"{name}: has a query or a fragment, after which no path can be added; leave it out; {_KEY_IS}"
        )

"""An engine's options and terms as the flags of its command line."""

from collections.abc import Iterable, Iterator, Mapping

from harness.errors import UserError


def need_counts(engine: str, options: object, *names: str) -> None:
    """Raise UserError where one of these options is given and below 1."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"{engine}.{name}={value}: must be 1 or more")


def flags(values: Mapping[str, object], glue: str | None = "=") -> Iterator[str]:
    """Yield `--name=value` for each value, `--name` for True, nothing for None and False.

    With glue None name and value are two words.
    """
    for name, value in values.items():
        if value is None or value is False:
            continue
        if value is True:
            yield f"--{name}"
        elif glue is None:
            yield from (f"--{name}", str(value))
        else:
            yield f"--{name}{glue}{value}"


def named(options: object, names: Iterable[str]) -> dict[str, object]:
    """Return these options by the names of their flags, which have dashes."""
    return {name.replace("_", "-"): getattr(options, name) for name in names}


def switch(name: str, is_on: bool | None) -> dict[str, object]:
    """Return the flag that turns something on, or the one with `no-` that turns it off; None: neither."""
    return {} if is_on is None else {name if is_on else f"no-{name}": True}

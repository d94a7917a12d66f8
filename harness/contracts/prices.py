"""What a device's hour and an API's tokens cost. Standard library only; no behaviour."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Price:
    """`gpu_hour`: of one device (without a GPU, of the machine) for an hour, in `currency`; finite, 0 or
    more. None: nobody said, and no cost is shown."""

    gpu_hour: float | None = None
    currency: str = "USD"


@dataclass(frozen=True)
class ApiPrice:
    """What a provider asked for the same model, per million tokens; `as_of` is a date (ISO 8601), `source`
    says where it stood."""

    provider: str
    input_per_million: float
    output_per_million: float
    currency: str
    as_of: str
    source: str

"""The annotations by which a Service asks for another choice of endpoint than a random one, read and written. Pure.

    Service         kubesvc.dev/balance: weighted | maglev          both count weights
                    kubesvc.dev/balance-key: client | connection    maglev: what chooses; the default is the connection
    Pod             kubesvc.dev/weight: 0 to 100                    0: no new connections while others are there
    EndpointSlice   kubesvc.dev/weights: 10.244.0.7=5,10.244.1.3=0  the pods' weights on their way to the data planes

The way from a pod to the data planes leads through the slices alone. An annotation there is what other readers of
slices overlook: fields of an endpoint that the API doesn't define would be dropped by a server that knows the schema,
and hints or zones would be obeyed.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from kubesvc.api.core import Service
from kubesvc.api.labels import BALANCE, BALANCE_KEY, WEIGHT
from kubesvc.api.pods import Pod

MOST = 100
"""The greatest weight."""


class Balance(StrEnum):
    WEIGHTED = "weighted"
    MAGLEV = "maglev"


class Key(StrEnum):
    CLIENT = "client"
    CONNECTION = "connection"


class Invalid(ValueError):
    """An annotation's value is none that is known; says which, where, and what is expected."""


def balance_of(service: Service) -> Balance | None:
    """None: random. Raises Invalid."""
    value = service.metadata.annotations.get(BALANCE)
    if value is None:
        return None
    try:
        return Balance(value)
    except ValueError:
        expected = "weighted or maglev; endpoints are chosen at random"
        raise Invalid(f"annotation {BALANCE} is {value!r}; expected {expected}") from None


def key_of(service: Service) -> Key:
    """Raises Invalid."""
    value = service.metadata.annotations.get(BALANCE_KEY, Key.CONNECTION)
    try:
        return Key(value)
    except ValueError:
        expected = "client or connection; taken as connection"
        raise Invalid(f"annotation {BALANCE_KEY} is {value!r}; expected {expected}") from None


def weight_of(pod: Pod) -> int:
    """Raises Invalid."""
    value = pod.metadata.annotations.get(WEIGHT)
    if value is None:
        return 1
    number = _whole_number(value)
    if number is None:
        raise Invalid(f"annotation {WEIGHT} is {value!r}; expected a whole number from 0 to {MOST}; taken as 1")
    return number


def _whole_number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 3 and int(text) <= MOST else None


def write_weights(weights: Mapping[str, int]) -> str:
    return ",".join(f"{address}={weight}" for address, weight in sorted(weights.items()))


def read_weights(text: str) -> dict[str, int]:
    """Address, as written -> weight. What can't be read is left out: it weighs 1."""
    found: dict[str, int] = {}
    for part in text.split(","):
        address, _, weight = part.strip().rpartition("=")
        if (number := _whole_number(weight)) is not None and address:
            found[address] = number
    return found

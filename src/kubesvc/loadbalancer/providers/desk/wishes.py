"""What a Service asks of its cloud by annotations, read as that cloud reads them. Pure.

BadWish    a value that the cloud would refuse; the message names the annotation, the value and what it expects
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network

from kubesvc.api.core import Service
from kubesvc.loadbalancer.providers.desk.vocabulary import SOURCE_RANGES


class BadWish(ValueError):
    pass


class Wishes:
    """The annotations below one prefix."""

    def __init__(self, annotations: Mapping[str, str], prefix: str) -> None:
        self._annotations, self._prefix = annotations, prefix

    def text(self, name: str, default: str = "") -> str:
        return self._annotations.get(self._prefix + name, default).strip()

    def is_true(self, name: str) -> bool:
        return self.text(name).lower() == "true"

    def number(self, name: str, default: int, lowest: int, highest: int) -> int:
        """Raises BadWish."""
        said = self.text(name)
        if not said:
            return default
        if not said.isdecimal() or not lowest <= int(said) <= highest:
            expected = f"expected a number from {lowest} to {highest}"
            raise BadWish(f"annotation {self._prefix}{name} is {said!r}: {expected}")
        return int(said)

    def one_of(self, name: str, default: str, *allowed: str) -> str:
        """Case doesn't matter. Raises BadWish."""
        said = self.text(name, default).lower()
        if said not in allowed:
            raise BadWish(f"annotation {self._prefix}{name} is {said!r}: expected one of {', '.join(allowed)}")
        return said

    def pairs(self, name: str) -> dict[str, str]:
        """KEY=VALUE,KEY=VALUE. Raises BadWish."""
        found = {}
        for part in filter(None, (p.strip() for p in self.text(name).split(","))):
            key, equals, value = part.partition("=")
            if not equals:
                raise BadWish(f"annotation {self._prefix}{name} holds {part!r}: expected KEY=VALUE,KEY=VALUE")
            found[key.strip()] = value.strip()
        return found


def sources(service: Service) -> tuple[str, ...]:
    """Who may: spec.loadBalancerSourceRanges, else the annotation; none: everybody. Raises BadWish."""
    said = service.spec.load_balancer_source_ranges or [
        part.strip() for part in service.metadata.annotations.get(SOURCE_RANGES, "").split(",") if part.strip()
    ]
    found = []
    for text in said:
        try:
            network = ip_network(text.strip())
        except ValueError as error:
            raise BadWish(f"source range {text!r}: {error}; expected CIDRs such as 192.0.2.0/24") from error
        if network.version == 4:
            found.append(str(network))
    return tuple(found)

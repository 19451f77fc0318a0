"""Who points where: addresses -> the Services that give them a name. Pure.

Kept by the address's text, which the objects hold already: a reverse name is spelt out only when it is asked for.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from kubesvc.dns.sets import Owner
from kubesvc.dns.wire import IN_ADDR


class Pointers:
    """An owner may come with an address several times (two slices, a move between them) and leaves as often."""

    def __init__(self) -> None:
        self._owners: dict[str, Owner | list[Owner]] = {}  # address -> its owner, or several

    def add(self, address: str, owner: Owner) -> None:
        found = self._owners.setdefault(address, owner)
        if isinstance(found, list):
            found.append(owner)
        elif found is not owner:
            self._owners[address] = [found, owner]

    def discard(self, address: str, owner: Owner) -> None:
        found = self._owners.get(address)
        if isinstance(found, list) and owner in found:
            found.remove(owner)
            if len(found) == 1:
                self._owners[address] = found[0]
        elif found == owner:
            del self._owners[address]

    def get(self, address: str) -> list[Owner]:
        """The owners of an address in its canonical spelling, each once."""
        found = self._owners.get(address, [])
        return list(dict.fromkeys(found)) if isinstance(found, list) else [found]

    def any_below(self, labels: Sequence[bytes], suffix: bytes) -> bool:
        """Is there an address whose reverse name ends in these labels of in-addr.arpa or ip6.arpa? Takes its time."""
        parts = [label.decode("latin-1") for label in reversed(labels)]
        if suffix == IN_ADDR:
            start = ".".join(parts) + "."
            return any(address.startswith(start) for address in self._owners)
        start = "".join(parts)
        return any(
            ipaddress.IPv6Address(address).packed.hex().startswith(start) for address in self._owners if ":" in address
        )

    def __len__(self) -> int:
        return len(self._owners)


def canonical(addresses: Iterable[str]) -> list[str]:
    """IPv6 addresses have several spellings; the one that a reverse name leads to. Others are passed over."""
    return [one if ":" not in one else _spelt(one) for one in addresses]


def _spelt(address: str) -> str:
    try:
        return str(ipaddress.IPv6Address(address))
    except ValueError:
        return address

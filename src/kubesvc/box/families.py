"""Which IP families a box has, and the networks of each: IPv4, IPv6, or both, the first of them the primary. Pure.

Two networks are written as Kubernetes' own flags take them, separated by a comma: 10.96.0.0/16,fd00:10:96::/112.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from kubesvc.box.errors import BoxError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

IPV4, IPV6, DUAL = "ipv4", "ipv6", "dual"
WORDS = (IPV4, IPV6, DUAL)
SERVICES = {4: "10.96.0.0/16", 6: "fd00:10:96::/112"}
PODS = {4: "10.244.0.0/16", 6: "fd00:10:244::/56"}
NODE_BLOCK = {4: 24, 6: 64}  # prefix of the pod network that each node gets
_EXAMPLE = {4: "10.96.0.0/16", 6: "fd00:10:96::/112"}
_SERVICES_LIMITS = {4: (1, 27), 6: (64, 123)}
_PODS_LIMITS = {4: (1, 24), 6: (1, 64)}
_NODES_LIMITS = {4: (1, 26), 6: (1, 120)}
LIMITS = {"--service-cidr": _SERVICES_LIMITS, "--pod-cidr": _PODS_LIMITS, "--node-cidr": _NODES_LIMITS}
"""Option -> version -> shortest and longest prefix. With fewer than 64 addresses there is no room for a pool."""


def split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text else []


def networks(text: str) -> tuple[Network, ...]:
    """Of a text that was checked."""
    return tuple(map(ip_network, split(text)))


def parse(option: str, text: str) -> tuple[Network, ...]:
    """One network, or one of each family. Raises BoxError."""
    found: list[Network] = []
    for part in split(text):
        try:
            network = ip_network(part)
        except ValueError as error:
            expected = f"expected a network such as {_EXAMPLE[4]}, or one of each family, separated by a comma"
            raise BoxError(f"{option} {text!r}: {error}; {expected}") from error
        shortest, longest = LIMITS[option][network.version]
        if network.prefixlen > longest:
            raise BoxError(f"{option} {part!r} is too small: expected a prefix of /{longest} or shorter")
        if network.prefixlen < shortest:
            raise BoxError(f"{option} {part!r} is too large: expected a prefix of /{shortest} or longer")
        found.append(network)
    if len(found) > 2 or len({network.version for network in found}) != len(found):
        raise BoxError(f"{option} {text!r}: expected one network, or one of IPv4 and one of IPv6")
    return tuple(found)


def versions(word: str, cidrs: Sequence[str]) -> tuple[int, ...]:
    """The families a box has, the primary first: what `--ip-family` says, in the order of the first of `cidrs` that is
    given; without the flag, that one alone decides. IPv4 when nothing is said. Raises BoxError."""
    said = next(
        (tuple(n.version for n in parse(option, text)) for option, text in zip(LIMITS, cidrs, strict=True) if text), ()
    )
    if not word:
        return said or (4,)
    if word not in WORDS:
        raise BoxError(f"--ip-family {word!r}: expected {IPV4}, {IPV6} or {DUAL}")
    wanted = {IPV4: (4,), IPV6: (6,), DUAL: (4, 6)}[word]
    return said if set(said) == set(wanted) else wanted


def word(found: Sequence[int]) -> str:
    """What `--ip-family` is called that has these versions."""
    return DUAL if len(found) == 2 else IPV4 if 4 in found else IPV6


def check(option: str, text: str, wanted: tuple[int, ...]) -> tuple[Network, ...]:
    """Networks of just these families, in this order. Raises BoxError."""
    found = parse(option, text)
    if tuple(network.version for network in found) != wanted:
        names = " and then ".join(f"IPv{version}" for version in wanted)
        raise BoxError(
            f"{option} {text!r}: expected one network of {names}, as --ip-family {word(wanted)} and the other "
            f"networks have it"
        )
    return found


def check_pods(pods: Sequence[Network], nodes: int, what: str) -> None:
    """Raises BoxError unless every node can have a block of each. `what` needs them, as the message says it."""
    for network in pods:
        block = NODE_BLOCK[network.version]
        if 1 << max(0, block - network.prefixlen) < nodes:
            raise BoxError(f"--pod-cidr {network} holds fewer /{block} networks than {what}; give a larger one")

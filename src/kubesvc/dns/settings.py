"""What a user says about DNS, as `kubesvc up` and `kubesvc dns` take it: spelt out, checked, made into a config."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from kubesvc.dns import upstreams, wire
from kubesvc.dns.config import DnsConfig
from kubesvc.dns.zones import BadZone, Zones

NAME = re.compile(r"[a-zA-Z0-9_-]+(\.[a-zA-Z0-9_-]+)*\.?")
DOMAIN = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*")


class BadSetting(ValueError):
    """A flag's value can't be used; the message names the flag, the value and what was expected."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Each is what the flag of its name was given, once for each time."""

    dns_domain: tuple[str, ...] = ("cluster.local",)  # the cluster's own first
    forward: tuple[str, ...] = ()  # ADDRESS, ADDRESS:PORT, tls://ADDRESS#NAME; none: the machine's own
    zone: tuple[str, ...] = ()  # NAME=ADDRESS[,ADDRESS …]
    host: tuple[str, ...] = ()  # NAME=ADDRESS[,ADDRESS …]
    public_zone: tuple[str, ...] = ()  # NAME[=SERVER[,SERVER …]]
    transfer_to: tuple[str, ...] = ()  # CIDR
    notify: tuple[str, ...] = ()  # ADDRESS[:PORT]

    def check(self) -> None:
        """Raises BadSetting."""
        for text in self.dns_domain:
            if not DOMAIN.fullmatch(text):
                raise BadSetting(f"--dns-domain {text!r}: expected a lower-case DNS name such as cluster.local")
        for text in self.public_zone:
            name, _, servers = text.partition("=")
            for one in (name, *_parts(servers)):
                if not NAME.fullmatch(one):
                    raise BadSetting(
                        f"--public-zone {text!r}: expected NAME or NAME=SERVER,SERVER with names of servers"
                    )
        try:
            zones = Zones(self.dns_domain, public=_pairs(self.public_zone))
        except BadZone as error:
            raise BadSetting(f"--dns-domain, --public-zone: {error}") from error
        for text in self.forward:
            _upstream("--forward", text)
        for text in self.zone:
            self._check_zone(text, zones)
        for text in self.host:
            self._check_host(text, zones)
        for text in self.transfer_to:
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                raise BadSetting(f"--transfer-to {text!r}: {error}; expected a CIDR such as 192.0.2.53/32") from error
        for text in self.notify:
            try:
                upstreams.endpoint(text)
            except ValueError as error:
                what = "expected ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT of a secondary"
                raise BadSetting(f"--notify {text!r}: {what}") from error

    def _check_zone(self, text: str, zones: Zones) -> None:
        name, equals, servers = text.partition("=")
        if not equals or not NAME.fullmatch(name):
            raise BadSetting(f"--zone {text!r}: expected NAME=ADDRESS, such as corp.example=10.0.0.53")
        inside = zones.of(wire.encode_name(name))
        if inside is not None:
            what = "the cluster's own zone" if inside.kind == "cluster" else "the public zone"
            raise BadSetting(f"--zone {text!r} lies in {what} {inside.text}: expected another name")
        for server in servers.split(","):
            _upstream("--zone", server)

    def _check_host(self, text: str, zones: Zones) -> None:
        name, equals, addresses = text.partition("=")
        if not equals or not NAME.fullmatch(name):
            raise BadSetting(f"--host {text!r}: expected NAME=ADDRESS, such as git.corp.example=10.0.0.7")
        inside = zones.of(wire.encode_name(name))
        if inside is not None:
            raise BadSetting(f"--host {text!r} lies in {inside.text}, which is answered from the cluster")
        for address in addresses.split(","):
            try:
                ipaddress.ip_address(address)
            except ValueError as error:
                raise BadSetting(f"--host {text!r}: {error}; expected addresses after the =") from error

    def apply(self, config: DnsConfig) -> DnsConfig:
        """`config` with these settings; `forward` only where it names somebody, so that the machine's own stay."""
        changed = replace(
            config,
            dns_domain=self.dns_domain[0],
            more_domains=self.dns_domain[1:],
            public_zones=_pairs(self.public_zone),
            zones=_pairs(self.zone),
            hosts=_pairs(self.host),
            transfer_to=self.transfer_to,
            notify=self.notify,
        )
        return replace(changed, upstreams=self.forward, find_upstreams=None) if self.forward else changed


def listed(values: Iterable[str]) -> tuple[str, ...]:
    """The parts of values that hold several, separated by commas; each once."""
    return tuple(dict.fromkeys(part for value in values for part in _parts(value)))


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _pairs(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """NAME[=PART,PART …] -> the parts."""
    return {name: tuple(_parts(rest)) for name, _, rest in (text.partition("=") for text in texts)}


def _upstream(flag: str, text: str) -> None:
    try:
        upstreams.parse(text)
    except ValueError as error:
        what = "expected ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT or tls://ADDRESS#NAME"
        raise BadSetting(f"{flag} {text!r}: {what} of a DNS server") from error

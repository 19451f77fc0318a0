"""The rules of kubesvc.dev: what the load balancer's own kinds must look like.

What concerns more than one object (pools that overlap, names nobody has) is for the load balancer to say, in their
status: objects may come in any order.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from kubesvc.api import registry
from kubesvc.api.balancing import parse_duration, parse_range
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission.causes import invalid, required
from kubesvc.apiserver.admission.context import Context
from kubesvc.apiserver.admission.rules import Rules

_ASN = range(1, 2**32)
_COMMUNITY = re.compile(r"\d{1,5}:\d{1,5}|large:\d{1,10}:\d{1,10}:\d{1,10}")
_PORT = range(1, 2**16)
_BFD = {"receiveInterval": range(10, 60_001), "transmitInterval": range(10, 60_001), "detectMultiplier": range(2, 256)}


def default_pool(tree: JSON) -> None:
    spec = tree.setdefault("spec", {})
    spec.setdefault("autoAssign", True)
    spec.setdefault("avoidBuggyIPs", False)


def validate_pool(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    addresses = (new.get("spec") or {}).get("addresses") or []
    if not addresses:
        return [required("spec.addresses", "a network (192.0.2.0/24) or a range (192.0.2.10-192.0.2.20)")]
    causes: list[Cause] = []
    for index, text in enumerate(addresses):
        try:
            parse_range(text)
        except ValueError as error:
            causes.append(invalid(f"spec.addresses[{index}]", text, str(error)))
    return causes


def validate_bgp_advertisement(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    spec = new.get("spec") or {}
    causes = [
        invalid(f"spec.communities[{index}]", text, "must be two numbers (64512:100) or large:A:B:C")
        for index, text in enumerate(spec.get("communities") or ())
        if not _is_community(text)
    ]
    preference = spec.get("localPref")
    if preference is not None and preference not in range(2**32):
        causes.append(invalid("spec.localPref", preference, f"must be a number from 0 to {2**32 - 1}"))
    for field, longest in (("aggregationLength", 32), ("aggregationLengthV6", 128)):
        length = spec.get(field, longest)
        if not 1 <= length <= longest:
            causes.append(invalid(f"spec.{field}", length, f"must be a prefix length from 1 to {longest}"))
    return causes


def _is_community(text: str) -> bool:
    largest = 2**32 if text.startswith("large:") else 2**16
    return bool(_COMMUNITY.fullmatch(text)) and all(int(n) < largest for n in re.findall(r"\d+", text))


def validate_bgp_peer(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    spec = new.get("spec") or {}
    causes: list[Cause] = []
    for field in ("myASN", "peerASN"):
        if not isinstance(number := spec.get(field), int) or number not in _ASN:
            causes.append(invalid(f"spec.{field}", number, f"must be an AS number, 1 to {_ASN[-1]}"))
    for field in ("peerAddress", "sourceAddress", "routerID"):
        text = spec.get(field) or ""
        try:
            if (field == "peerAddress" or text) and ip_address(text).version == 6 and field == "routerID":
                raise ValueError
        except ValueError:
            wanted = "an IPv4 address" if field == "routerID" else "an IP address"
            causes.append(invalid(f"spec.{field}", text, f"must be {wanted}"))
    causes += _bad_times(spec)
    causes += [
        invalid(f"spec.{field}", number, f"must be a number from {allowed[0]} to {allowed[-1]}")
        for field, number, allowed in (
            ("peerPort", spec.get("peerPort"), _PORT),
            *((f"bfd.{name}", (spec.get("bfd") or {}).get(name), allowed) for name, allowed in _BFD.items()),
        )
        if number is not None and number not in allowed
    ]
    if spec.get("password") and spec.get("passwordSecret"):
        causes.append(invalid("spec.password", "***", "give password or passwordSecret, not both"))
    if any(c in '"\n\\' for c in spec.get("password") or ""):
        causes.append(invalid("spec.password", "***", "may not have quotes, backslashes or line breaks"))
    return causes


def _bad_times(spec: JSON) -> list[Cause]:
    given: dict[str, float] = {}
    for field in ("holdTime", "keepaliveTime", "connectTime"):
        if text := spec.get(field) or "":
            try:
                given[field] = parse_duration(text)
            except ValueError:
                return [invalid(f"spec.{field}", text, "must be a duration, such as 90s or 1m30s")]
    hold, keepalive = given.get("holdTime", 90.0), given.get("keepaliveTime", 0.0)
    if hold and not 3 <= hold < 2**16:
        return [invalid("spec.holdTime", spec["holdTime"], f"must be 0s, or from 3s to {2**16 - 1}s")]
    if keepalive > hold:
        return [invalid("spec.keepaliveTime", spec["keepaliveTime"], "may not be longer than holdTime")]
    return []


ADMITS = (
    (registry.IP_ADDRESS_POOL, Rules(default=default_pool, validate=validate_pool, counted=True)),
    (registry.L2_ADVERTISEMENT, Rules(counted=True)),
    (registry.BGP_ADVERTISEMENT, Rules(validate=validate_bgp_advertisement, counted=True)),
    (registry.BGP_PEER, Rules(validate=validate_bgp_peer, counted=True)),
)

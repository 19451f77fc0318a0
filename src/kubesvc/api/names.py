"""What may be a name, a label, a port: each check returns why not, in upstream's words, or nothing.

Source: apimachinery pkg/util/validation and pkg/api/validate/content; RFC 1035, RFC 1123.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_PORT_NAME = re.compile(r"[-a-z0-9]+")
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_ENV_NAME = re.compile(r"[ -<>-~]+")

_LABEL_WHY = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_LABEL_1035_WHY = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_SUBDOMAIN_WHY = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_QUALIFIED_WHY = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_LABEL_VALUE_WHY = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_CONFIG_KEY_WHY = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
    "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
_ENV_NAME_WHY = "a valid environment variable name must consist only of printable ASCII characters other than '='"
_PORT_WHY = "must be between 1 and 65535, inclusive"
_CIDR_WHY = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
_ZEROS_IN_CIDR_WHY = "must not have leading 0s in IP or prefix length"
_IP_WHY = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"


def _at_most(text: str, limit: int) -> list[str]:
    return [f"must be no more than {limit} bytes"] if len(text.encode()) > limit else []


def label(text: str) -> list[str]:
    """An RFC 1123 label: a namespace, a port of a Service, a container."""
    return _at_most(text, 63) + ([] if _LABEL.fullmatch(text) else [_LABEL_WHY])


def label_1035(text: str) -> list[str]:
    """An RFC 1035 label: it may not start with a digit."""
    return _at_most(text, 63) + ([] if _LABEL_1035.fullmatch(text) else [_LABEL_1035_WHY])


def subdomain(text: str) -> list[str]:
    """An RFC 1123 subdomain: most objects' names."""
    return _at_most(text, 253) + ([] if _SUBDOMAIN.fullmatch(text) else [_SUBDOMAIN_WHY])


def qualified_name(text: str) -> list[str]:
    """A label's key: a name with an optional DNS prefix and a slash."""
    prefix, slash, name = text.rpartition("/")
    if "/" in prefix:
        return [
            f"a qualified name {_QUALIFIED_WHY} with an optional DNS subdomain prefix and '/' "
            "(e.g. 'example.com/MyName')"
        ]
    problems: list[str] = []
    if slash and not prefix:
        problems.append("prefix part must be non-empty")
    elif slash:
        problems += [f"prefix part {why}" for why in subdomain(prefix)]
    if not name:
        problems.append("name part must be non-empty")
    elif len(name) > 63:
        problems.append("name part must be no more than 63 bytes")
    if not _QUALIFIED.fullmatch(name):
        problems.append(f"name part {_QUALIFIED_WHY}")
    return problems


def label_value(text: str) -> list[str]:
    return _at_most(text, 63) + ([] if _LABEL_VALUE.fullmatch(text) else [_LABEL_VALUE_WHY])


def config_key(text: str) -> list[str]:
    """A key of a ConfigMap or Secret."""
    problems = _at_most(text, 253) + ([] if _CONFIG_KEY.fullmatch(text) else [_CONFIG_KEY_WHY])
    if text == ".":
        problems.append("must not be '.'")
    elif text == "..":
        problems.append("must not be '..'")
    elif text.startswith(".."):
        problems.append("must not start with '..'")
    return problems


def env_name(text: str) -> list[str]:
    return [] if _ENV_NAME.fullmatch(text) else [_ENV_NAME_WHY]


def port_number(number: int) -> list[str]:
    return [] if 1 <= number <= 65535 else [_PORT_WHY]


def port_name(text: str) -> list[str]:
    """A container's port name (IANA_SVC_NAME, RFC 6335)."""
    problems: list[str] = []
    if len(text) > 15:
        problems.append("must be no more than 15 characters")
    if not _PORT_NAME.fullmatch(text):
        problems.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", text):
        problems.append("must contain at least one letter (a-z)")
    if "--" in text:
        problems.append("must not contain consecutive hyphens")
    if text and (text[0] == "-" or text[-1] == "-"):
        problems.append("must not begin or end with a hyphen")
    return problems


def is_plain_ipv4(text: str) -> bool:
    """Whether `text` spells an IPv4 address the one way there is without leading zeros."""
    return _IPV4.fullmatch(text) is not None


def is_loopback(host: str) -> bool:
    """Whether a host, a name or an address with or without brackets, is whoever asks for it."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@lru_cache(maxsize=16384)
def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """The address `text` spells, or None. Leading zeros and zones are not addresses."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return None if "%" in text else found


def address(text: str) -> list[str]:
    """An IP address in any spelling but the ambiguous ones: leading zeros, or IPv4 mapped into IPv6."""
    if is_plain_ipv4(text):
        return []
    found = parse_address(text)
    if found is None:
        octets = text.split(".")
        if len(octets) == 4 and all(o.isdigit() for o in octets) and any(len(o) > 1 and o[0] == "0" for o in octets):
            return ["must not have leading 0s"]
        return [_IP_WHY]
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return ["must not be an IPv4-mapped IPv6 address"]
    return []


def network(text: str) -> list[str]:
    """A CIDR, in any spelling but the ambiguous ones: leading zeros, IPv4 mapped into IPv6, host bits."""
    found = parse_network(text)
    if found is None:
        return [_ZEROS_IN_CIDR_WHY] if parse_network(_without_zeros(text)) is not None else [_CIDR_WHY]
    if text.rpartition("/")[2] != str(found.network.prefixlen):
        return [_ZEROS_IN_CIDR_WHY]
    if isinstance(found, IPv6Interface) and found.ip.ipv4_mapped is not None:
        return ["must not have an IPv4-mapped IPv6 address"]
    return [] if found.ip == found.network.network_address else ["must not have bits set beyond the prefix length"]


def _without_zeros(text: str) -> str:
    return re.sub(r"(?<![0-9a-fA-F:])0+(?=\d)", "", text)


def parse_network(text: str) -> IPv4Interface | IPv6Interface | None:
    if not re.search(r"/\d+$", text):
        return None
    try:
        return ip_interface(text)
    except ValueError:
        return None

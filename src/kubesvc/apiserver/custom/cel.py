"""The Common Expression Language: compiling and evaluating x-kubernetes-validations, and patterns in linear time.

The work is the CEL project's own C++ runtime (`cel-expr-python`, of the extra `cel`): it bounds an expression's depth
and its iterations, and its regular expressions are RE2's. Without it nothing here is enforced, and definitions are
answered with a warning that says so. Kubernetes' own functions are added: quantities, addresses, URLs, lists.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

try:
    from cel_expr_python import cel
    from cel_expr_python.ext import ext_math, ext_optional, ext_strings
except ImportError:  # the extra isn't installed
    cel = None

AVAILABLE: bool = cel is not None
MISSING = "CEL isn't installed (pip install 'kubesvc[cel]')"

_VARIABLES = ("self", "oldSelf", "object", "oldObject", "request")
_UNITS = {"": 0, "n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


class CelError(Exception):
    """An expression that can't be compiled or evaluated. `unsupported`: for want of a function that we don't have."""

    def __init__(self, why: str, *, unsupported: bool = False) -> None:
        super().__init__(why)
        self.unsupported = unsupported


class Program:
    """One compiled expression over `self` and `oldSelf`."""

    __slots__ = ("_compiled",)

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled

    def __call__(self, variables: dict[str, Any]) -> Any:
        """Its value as plain Python. Raises CelError."""
        try:
            value = self._compiled.eval(data=variables)
        except RuntimeError as error:
            raise CelError(_first_line(error)) from error
        if value.type() == cel.Type.ERROR:
            raise CelError(str(value.value()))
        return value.plain_value()


@lru_cache(maxsize=4096)
def compiled(expression: str) -> Program:
    """Raises CelError."""
    try:
        return Program(_environment().compile(expression))
    except RuntimeError as error:
        why = str(error)
        raise CelError(_first_line(error), unsupported="undeclared reference to" in why) from error


@lru_cache(maxsize=1)
def _environment() -> Any:
    if cel is None:
        raise CelError(MISSING, unsupported=True)
    return cel.NewEnv(
        variables={**dict.fromkeys(_VARIABLES, cel.Type.DYN), "pattern": cel.Type.STRING, "text": cel.Type.STRING},
        extensions=[ext_strings.ExtStrings(), ext_optional.ExtOptional(), ext_math.ExtMath()],
        functions=_functions(),
    )


def match(pattern: str, text: str) -> bool:
    """Whether RE2 finds `pattern` in `text`; yes where there is no RE2, or where it can't read the pattern."""
    if cel is None:
        return True
    try:
        return bool(compiled("text.matches(pattern)")({"pattern": pattern, "text": text}))
    except CelError:
        return True


def pattern_error(pattern: str) -> str:
    """Why RE2 can't read `pattern`; empty when it can."""
    if cel is None:
        return ""
    try:
        compiled("text.matches(pattern)")({"pattern": pattern, "text": ""})
    except CelError as error:
        return str(error)
    return ""


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line and not line.startswith(" |")]
    return lines[0].removeprefix("INVALID_ARGUMENT: ").removeprefix("INTERNAL: ") if lines else "unknown error"


# ── functions of Kubernetes' own (apiserver pkg/cel/library) ─────────────────────────────────────────────────────────


def quantity(text: str) -> Decimal:
    """The number that a quantity such as 100m or 2Gi is. Raises ValueError."""
    stem = text.rstrip("numkKMGTPEi")
    unit = text[len(stem) :]
    try:
        if unit.endswith("i"):
            return Decimal(stem) * (1 << 10 * ("KMGTPE".index(unit[0]) + 1))
        return Decimal(stem).scaleb(_UNITS[unit])
    except (ArithmeticError, KeyError, IndexError, ValueError) as error:
        raise ValueError(f"{text!r} is no quantity") from error


def _is(parse: Callable[[str], Any]) -> Callable[[str], bool]:
    def asked(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return asked


def _url(text: str) -> Any:
    parts = urlsplit(text)
    if not ((parts.scheme and parts.netloc) or text.startswith("/")):
        raise ValueError(f"{text!r} is no absolute URL")
    return parts


def _cidr(text: str) -> Any:
    if "/" not in text:
        raise ValueError(f"{text!r} has no prefix length")
    return ipaddress.ip_network(text, strict=False)


def _functions() -> list[Any]:
    """Quantities, addresses, ranges and URLs are handled as their text, which is how they arrive."""
    kinds = cel.Type
    dyn, string, boolean, integer = kinds.DYN, kinds.STRING, kinds.BOOL, kinds.INT
    items = kinds.List(dyn)
    found: dict[str, list[Any]] = {}

    def add(name: str, result: Any, takes: list[Any], impl: Callable[..., Any], *, member: bool = True) -> None:
        overloads = found.setdefault(name, [])
        overloads.append(cel.Overload(f"kubernetes_{name}_{len(overloads)}", result, takes, member, impl))

    def checked(parse: Callable[[str], Any]) -> Callable[[str], str]:
        def same(text: str) -> str:
            parse(text)
            return text

        return same

    for name, parse in (("quantity", quantity), ("ip", ipaddress.ip_address), ("cidr", _cidr), ("url", _url)):
        add(name, string, [string], checked(parse), member=False)
        add({"quantity": "isQuantity", "ip": "isIP", "cidr": "isCIDR", "url": "isURL"}[name], boolean, [string],
            _is(parse), member=False)  # fmt: skip
    add("isGreaterThan", boolean, [string, string], lambda a, b: quantity(a) > quantity(b))
    add("isLessThan", boolean, [string, string], lambda a, b: quantity(a) < quantity(b))
    add("compareTo", integer, [string, string], lambda a, b: int(quantity(a).compare(quantity(b))))
    add("isInteger", boolean, [string], lambda a: quantity(a) % 1 == 0)
    add("asInteger", integer, [string], lambda a: int(quantity(a)))
    add("asApproximateFloat", kinds.DOUBLE, [string], lambda a: float(quantity(a)))
    add("sign", integer, [string], lambda a: (quantity(a) > 0) - (quantity(a) < 0))
    add("family", integer, [string], lambda a: ipaddress.ip_address(a).version)
    add("isLoopback", boolean, [string], lambda a: ipaddress.ip_address(a).is_loopback)
    add("isUnspecified", boolean, [string], lambda a: ipaddress.ip_address(a).is_unspecified)
    add("prefixLength", integer, [string], lambda a: _cidr(a).prefixlen)
    add("containsIP", boolean, [string, string], lambda a, b: ipaddress.ip_address(b) in _cidr(a))
    add("containsCIDR", boolean, [string, string], lambda a, b: _cidr(b).subnet_of(_cidr(a)))
    add("getScheme", string, [string], lambda a: _url(a).scheme)
    add("getHost", string, [string], lambda a: _url(a).netloc)
    add("getHostname", string, [string], lambda a: _url(a).hostname or "")
    add("getPort", string, [string], lambda a: str(_url(a).port or ""))
    add("getEscapedPath", string, [string], lambda a: _url(a).path)
    add("isSorted", boolean, [items], lambda a: all(x <= y for x, y in pairwise(a)))
    add("sum", dyn, [items], lambda a: sum(a))
    add("min", dyn, [items], lambda a: min(a))
    add("max", dyn, [items], lambda a: max(a))
    return [cel.FunctionDecl(name, overloads) for name, overloads in found.items()]

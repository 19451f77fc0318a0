"""Seccomp profiles: files of system calls and what becomes of them, as the OCI runtime spec's `linux.seccomp`. Pure.

A file is that object itself, or one as Docker and Podman write it, where rules hold only for some capabilities,
architectures or kernels (includes, excludes) and the architectures are a map.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from kubesvc.api.meta import JSON

# uname -m -> the kernel's own architecture, and those whose programs it runs too
ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
    "armv7l": ("SCMP_ARCH_ARM",),
    "ppc64le": ("SCMP_ARCH_PPC64LE",),
    "s390x": ("SCMP_ARCH_S390X", "SCMP_ARCH_S390"),
    "riscv64": ("SCMP_ARCH_RISCV64",),
}
# uname -m -> what Docker's files call it
_NAMES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}
ACTIONS = frozenset(
    f"SCMP_ACT_{name}"
    for name in ("ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "NOTIFY", "TRACE", "TRAP")
)


class _Condition(msgspec.Struct, rename="camel"):
    caps: list[str] | None = None
    arches: list[str] | None = None
    min_kernel: str = ""


class _Argument(msgspec.Struct, rename="camel"):
    index: int
    value: int
    op: str
    value_two: int = 0


class _Rule(msgspec.Struct, rename="camel"):
    action: str
    names: list[str] | None = None
    name: str = ""  # in old files
    args: list[_Argument] | None = None
    errno_ret: int | None = None
    includes: _Condition = msgspec.field(default_factory=_Condition)
    excludes: _Condition = msgspec.field(default_factory=_Condition)


class _Architecture(msgspec.Struct, rename="camel"):
    architecture: str
    sub_architectures: list[str] | None = None


class _Profile(msgspec.Struct, rename="camel"):
    default_action: str
    default_errno_ret: int | None = None
    architectures: list[str] | None = None
    arch_map: list[_Architecture] | None = None
    flags: list[str] | None = None
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: list[_Rule] | None = None


class Place(msgspec.Struct, frozen=True):
    """What rules may depend on; `kernel` is its major and minor version."""

    machine: str
    capabilities: Collection[str]
    kernel: tuple[int, int]


def decode(text: bytes, machine: str, capabilities: Collection[str], kernel: tuple[int, int]) -> JSON:
    """The profile for a container with these capabilities. Raises ValueError."""
    try:
        profile = msgspec.json.decode(text, type=_Profile)
    except msgspec.DecodeError as error:
        raise ValueError(f"decoding seccomp profile failed: {error}") from error
    place = Place(machine, capabilities, kernel)
    rules = [rule for rule in profile.syscalls or () if _holds(rule, place)]
    for action in (profile.default_action, *(rule.action for rule in rules)):
        if action not in ACTIONS:
            raise ValueError(f'decoding seccomp profile failed: action "{action}": expected one of {_listed()}')
    found: JSON = {"defaultAction": profile.default_action}
    if profile.default_errno_ret is not None:
        found["defaultErrnoRet"] = profile.default_errno_ret
    if architectures := profile.architectures or _native(profile.arch_map or (), machine):
        found["architectures"] = architectures
    for name, value in (
        ("flags", profile.flags),
        ("listenerPath", profile.listener_path),
        ("listenerMetadata", profile.listener_metadata),
    ):
        if value:
            found[name] = value
    found["syscalls"] = [_rule(rule) for rule in rules if rule.names or rule.name]
    return found


def _listed() -> str:
    return ", ".join(sorted(ACTIONS))


def _rule(rule: _Rule) -> JSON:
    found: JSON = {"names": rule.names or [rule.name], "action": rule.action}
    if rule.errno_ret is not None:
        found["errnoRet"] = rule.errno_ret
    if rule.args:
        found["args"] = [{"index": a.index, "value": a.value, "valueTwo": a.value_two, "op": a.op} for a in rule.args]
    return found


def _native(known: Collection[_Architecture], machine: str) -> list[str]:
    own = ARCHITECTURES.get(machine, ("",))[0]
    return next(([own, *(e.sub_architectures or ())] for e in known if e.architecture == own), [])


def _holds(rule: _Rule, place: Place) -> bool:
    """A rule holds where all it includes is so, and nothing that it excludes."""
    wanted, unwanted, name = rule.includes, rule.excludes, _NAMES.get(place.machine, place.machine)
    if wanted.arches and name not in wanted.arches:
        return False
    if not set(wanted.caps or ()) <= set(place.capabilities):
        return False
    if wanted.min_kernel and place.kernel < _version(wanted.min_kernel):
        return False
    if name in (unwanted.arches or ()) or set(unwanted.caps or ()) & set(place.capabilities):
        return False
    return not (unwanted.min_kernel and place.kernel >= _version(unwanted.min_kernel))


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    if not (major.isdigit() and minor.isdigit()):
        raise ValueError(f'decoding seccomp profile failed: minKernel "{text}": expected a version such as 4.8')
    return int(major), int(minor)

"""Seccomp profiles: whose counts, what becomes of a file, and what the node's own refuses."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kubesvc.api.pods import Container, SeccompProfile, SecurityContext
from kubesvc.node import seccomp, seccomp_default, security
from support.objects import pod

JSON = dict[str, Any]
FILE = SeccompProfile("Localhost", "a.json")


@pytest.mark.parametrize(
    ("of_pod", "own", "found"),
    [
        pytest.param(None, None, None, id="nothing said"),
        pytest.param(FILE, None, FILE, id="the pod's"),
        pytest.param(FILE, SecurityContext(), FILE, id="the container says something else"),
        pytest.param(
            FILE, SecurityContext(seccomp_profile=SeccompProfile("RuntimeDefault")), SeccompProfile("RuntimeDefault"),
            id="the container's own",
        ),
        pytest.param(
            FILE, SecurityContext(seccomp_profile=SeccompProfile("Unconfined")), None, id="the container wants none"
        ),
        pytest.param(FILE, SecurityContext(privileged=True), None, id="who is privileged has none"),
        pytest.param(None, SecurityContext(privileged=True, seccomp_profile=FILE), None, id="whatever it says"),
    ],
)  # fmt: skip
def test_the_containers_profile_goes_before_the_pods(
    of_pod: SeccompProfile | None, own: SecurityContext | None, found: SeccompProfile | None
) -> None:
    context = {"seccompProfile": msgspec.to_builtins(of_pod)} if of_pod else {}
    assert security.seccomp(pod("p", securityContext=context), Container(name="c", security_context=own)) == found


def decoded(profile: JSON, *capabilities: str, machine: str = "x86_64", kernel: tuple[int, int] = (6, 1)) -> JSON:
    return seccomp.decode(msgspec.json.encode(profile), machine, capabilities, kernel)


def test_a_file_of_the_runtime_spec_is_taken_as_it_is() -> None:
    rule = {
        "names": ["personality"],
        "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": 8, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
    }
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [rule],
    }
    assert decoded(profile) == profile


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({}, True),
        ({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, True),
        ({"includes": {"caps": ["CAP_BPF"]}}, False),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, False),
        ({"includes": {"arches": ["amd64", "x32"]}}, True),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"includes": {"minKernel": "6.1"}}, True),
        ({"includes": {"minKernel": "6.2"}}, False),
    ],
)
def test_a_rule_of_dockers_files_holds_where_it_says(condition: JSON, holds: bool) -> None:
    rule = {"names": ["mount"], "action": "SCMP_ACT_ALLOW", **condition}
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        ],
        "syscalls": [rule],
    }
    found = decoded(profile, "CAP_SYS_ADMIN")
    assert found["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert bool(found["syscalls"]) is holds


@pytest.mark.parametrize(
    ("profile", "why"),
    [
        ({"syscalls": []}, "Object missing required field `defaultAction`"),
        ({"defaultAction": "SCMP_ACT_DENY"}, 'action "SCMP_ACT_DENY": expected one of SCMP_ACT_ALLOW, '),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["x"], "action": "no"}]}, 'action "no"'),
    ],
)
def test_a_file_that_is_no_profile_says_what_is_wrong(profile: JSON, why: str) -> None:
    with pytest.raises(ValueError, match="decoding seccomp profile failed: ") as raised:
        decoded(profile)
    assert why in str(raised.value)


def refused(*capabilities: str) -> set[str]:
    """What is refused whatever its arguments."""
    rules = seccomp_default.build("x86_64", capabilities)["syscalls"]
    return {name for rule in rules for name in rule["names"] if "args" not in rule}


def test_the_nodes_own_profile_leaves_what_capabilities_are_for() -> None:
    """With none of them the machine's administration is refused; each opens its own."""
    assert {"mount", "setns", "bpf", "reboot", "keyctl", "clone3"} <= refused()
    assert not {"read", "clone", "socket", "ptrace", "personality"} & refused()
    assert refused() - refused("CAP_SYS_ADMIN") >= {"mount", "bpf", "syslog", "clone3"}
    assert refused() - refused("CAP_BPF") == {"bpf"}
    assert refused() - refused("CAP_SYS_TIME") == {"clock_settime", "clock_settime64", "settimeofday", "stime"}
    assert "keyctl" in refused("CAP_SYS_ADMIN")


def test_new_namespaces_are_refused_by_clones_flags() -> None:
    found = seccomp_default.build("x86_64", ())
    masks = {rule["args"][0]["value"] for rule in found["syscalls"] if rule["names"] == ["clone"]}
    assert masks == set(seccomp_default.NEW_NAMESPACES)
    assert found["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    admin = seccomp_default.build("x86_64", ("CAP_SYS_ADMIN",))
    assert not [rule for rule in admin["syscalls"] if rule["names"] == ["clone"]]

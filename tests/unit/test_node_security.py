"""Who a container's processes are and what they may, as the pod and the container say."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api.pods import Container, SecurityContext
from kubesvc.node import security, spec
from kubesvc.node.environment import ConfigError
from kubesvc.node.images.accounts import Account
from kubesvc.node.images.image import HOST, Image
from support.objects import pod

HAD = frozenset({*security.CAPABILITIES, "CAP_SYS_ADMIN"})


def container(**given: Any) -> Container:
    return Container(name="c", command=["x"], security_context=SecurityContext(**given) if given else None)


@pytest.mark.parametrize(
    ("of_pod", "own", "user", "problem"),
    [
        pytest.param({}, {}, "", "", id="nothing said"),
        pytest.param({"runAsNonRoot": True}, {}, "", "and image will run as root", id="root's image"),
        pytest.param({"runAsNonRoot": True}, {}, "0:5", "and image will run as root", id="root by number"),
        pytest.param({"runAsNonRoot": True}, {}, "1000", "", id="an image of somebody else"),
        pytest.param({"runAsNonRoot": True}, {}, "app", "non-numeric user (app), cannot verify", id="by name"),
        pytest.param({"runAsNonRoot": True, "runAsUser": 7}, {}, "app", "", id="the pod says who"),
        pytest.param(
            {"runAsUser": 7}, {"run_as_non_root": True}, "", "", id="the pod says who, the container not root"
        ),
        pytest.param(
            {"runAsNonRoot": True}, {"run_as_user": 0}, "1000", "breaks non-root policy", id="root on purpose"
        ),
        pytest.param({"runAsNonRoot": True}, {"run_as_non_root": False}, "", "", id="the container's word counts"),
    ],
)
def test_what_must_not_run_as_root_does_not(of_pod: Any, own: Any, user: str, problem: str) -> None:
    one = pod("p", securityContext=of_pod)
    image = Image(id="sha256:x", user=user)
    if not problem:
        security.keep_from_root(one, container(**own), image)
        return
    with pytest.raises(ConfigError) as raised:
        security.keep_from_root(one, container(**own), image)
    assert problem in str(raised.value)
    assert str(raised.value).endswith(f'(pod: "p_default({one.metadata.uid})", container: c)')


def test_the_pods_group_of_files_is_one_of_the_processes() -> None:
    one = pod("p", securityContext={"runAsUser": 7, "supplementalGroups": [5], "fsGroup": 2000})
    assert security.user(one, container(), Account()) == {"uid": 7, "gid": 0, "additionalGids": [5, 2000]}
    assert security.user(pod("p"), container(), Account(1, 2, (3,))) == {"uid": 1, "gid": 2, "additionalGids": [3]}


def config(own: Container, **of_pod: Any) -> dict[str, Any]:
    return spec.build(
        pod("p", securityContext=of_pod),
        own,
        environment={},
        binds=(),
        hostname="p",
        network="/n",
        cgroup="/g",
        available=HAD,
        image=HOST,
        account=Account(),
    )


def test_a_privileged_container_has_all_there_is() -> None:
    ordinary, privileged = config(container()), config(container(privileged=True))
    assert privileged["process"]["capabilities"]["bounding"] == sorted(HAD)
    assert ordinary["process"]["capabilities"]["bounding"] == sorted(security.CAPABILITIES)
    assert "maskedPaths" not in privileged["linux"]
    assert "readonlyPaths" not in privileged["linux"]
    assert privileged["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    for one, read_only in ((ordinary, True), (privileged, False)):
        (kernel,) = (m for m in one["mounts"] if m["destination"] == "/sys")
        assert ("ro" in kernel["options"]) is read_only


@pytest.mark.parametrize(("said", "held"), [(None, False), (True, False), (False, True)])
def test_privileges_may_be_kept_from_growing(said: bool | None, held: bool) -> None:
    assert config(container(allow_privilege_escalation=said))["process"]["noNewPrivileges"] is held


def test_sysctls_are_the_pods() -> None:
    found = config(container(), sysctls=[{"name": "net.core.somaxconn", "value": "1024"}])
    assert found["linux"]["sysctl"] == {"net.core.somaxconn": "1024"}
    assert "sysctl" not in config(container())["linux"]

"""Which pods keep too much on the node's disk."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from kubesvc.api.pods import Pod
from kubesvc.api.quantity import canonical, quantity
from kubesvc.node import eviction, status
from kubesvc.node.eviction import Usage
from kubesvc.node.lifecycle import Exit, State, View
from kubesvc.node.status import Failure
from support.objects import pod

MIB = 1 << 20


def container(name: str, limit: str | None = None, **more: Any) -> dict[str, Any]:
    resources = {"limits": {"ephemeral-storage": limit}} if limit else {}
    return {"name": name, "image": "host", "resources": resources, **more}


def of(*containers: dict[str, Any], init: tuple[dict[str, Any], ...] = (), **volumes: Any) -> Pod:
    found = [{"name": name, "emptyDir": empty} for name, empty in volumes.items()]
    return pod("p", containers=list(containers), initContainers=list(init), volumes=found)


VOLUME = 'Usage of EmptyDir volume "v" exceeds the limit "{}".'
WHOLE = "Pod ephemeral local storage usage exceeds the total limit of containers {}."
OWN = 'Container {} exceeded its local ephemeral storage limit "{}".'


@pytest.mark.parametrize(
    ("one", "volumes", "containers", "message"),
    [
        pytest.param(of(container("a"), v={}), {"v": 9 * MIB}, {}, "", id="no limit"),
        pytest.param(of(container("a"), v={"sizeLimit": "1Mi"}), {"v": MIB}, {}, "", id="full"),
        pytest.param(of(container("a"), v={"sizeLimit": "1Mi"}), {"v": MIB + 1}, {}, VOLUME.format("1Mi"), id="fuller"),
        pytest.param(of(container("a"), v={"sizeLimit": "0"}), {"v": MIB}, {}, "", id="nought is no limit"),
        pytest.param(of(container("a", "2Mi"), v={}), {"v": MIB}, {"a": MIB}, "", id="all within"),
        pytest.param(of(container("a", "2Mi"), v={}), {"v": MIB}, {"a": MIB + 1}, WHOLE.format("2Mi"), id="in all"),
        pytest.param(
            of(container("a", "1Mi"), container("b", "3Mi")), {}, {"a": MIB + 1}, OWN.format("a", "1Mi"), id="its own"
        ),
        pytest.param(of(container("a", "1Mi"), container("b")), {}, {"b": MIB + 1}, WHOLE.format("1Mi"), id="all"),
        pytest.param(
            of(container("a", "1Mi"), v={"sizeLimit": "1Mi"}), {"v": 2 * MIB}, {"a": 2 * MIB}, VOLUME.format("1Mi"),
            id="the volume first",
        ),
        pytest.param(
            of(container("a", "1Mi"), init=(container("i", "4Mi"),)), {}, {"a": MIB // 2, "i": 3 * MIB}, "",
            id="an init container may more",
        ),
        pytest.param(
            of(container("a", "1Mi"), init=(container("s", "2Mi", restartPolicy="Always"), container("i", "4Mi"))),
            {}, {"i": 6 * MIB + 1}, WHOLE.format("6Mi"),
            id="beside the sidecar before it",
        ),
    ],
)  # fmt: skip
def test_what_is_evicted_and_why(one: Pod, volumes: Any, containers: Any, message: str) -> None:
    assert eviction.excess(one, Usage(volumes, containers)) == message


def test_only_what_is_on_disk_and_limited_is_looked_at() -> None:
    one = of(container("a"), a={"sizeLimit": "1Mi"}, b={}, c={"medium": "Memory", "sizeLimit": "1Mi"})
    assert eviction.limited_volumes(one) == ["a"]
    assert eviction.on_disk(one) == ["a", "b"]
    assert not eviction.is_limited(one)
    assert eviction.is_limited(of(container("a", "1Mi")))


@pytest.mark.parametrize(
    ("written", "shown"),
    [("1024Ki", "1Mi"), ("1.5Gi", "1536Mi"), ("1000M", "1G"), ("100000", "100k"), ("512", "512"), ("0", "0")],
)
def test_a_quantity_is_shown_as_upstream_does(written: str, shown: str) -> None:
    assert canonical(quantity(written) or Decimal(0), written) == shown


def test_an_evicted_pod_has_failed_whatever_its_containers_did() -> None:
    one = of(container("a"))
    views = {"a": View("a", State.TERMINATED, id="x", exit=Exit(0, "Completed", 10.0))}
    found = status.build(
        one, views, 20.0, addresses=["10.0.0.1"], host_ips=["10.0.0.2"], started_at=1.0, failure=Failure("Evicted", "w")
    )
    assert (found["phase"], found["reason"], found["message"]) == ("Failed", "Evicted", "w")
    ready = next(c for c in found["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "PodFailed")

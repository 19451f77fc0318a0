"""What `kubesvc status` says of a Service that doesn't answer: the first thing that its user has to mend."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api.core import Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.endpoints import unnamed_target_ports
from kubesvc.box.serving import Serving, serving
from support.objects import endpoint_slice, pod, service

HTTP = [{"name": "http", "port": 80, "targetPort": 8080}]
NAMED = [{"name": "http", "port": 80, "targetPort": "web"}]


def declaring(name: str, *ports: dict[str, Any], **fields: Any) -> Any:
    return pod(name, "10.0.0.1", containers=[{"name": "main", "image": "host", "ports": list(ports)}], **fields)


def slice_of(*ready: bool, port: str | None = "http", **fields: Any) -> EndpointSlice:
    """Of pods a, b, …, each ready or not."""
    endpoints = [
        {
            "addresses": [f"10.0.0.{number}"],
            "conditions": {"ready": is_ready},
            "targetRef": {"kind": "Pod", "namespace": "default", "name": name, "uid": f"uid-{name}"},
        }
        for number, (name, is_ready) in enumerate(zip("abc", ready, strict=False), 1)
    ]
    ports = [] if port is None else [{"name": port, "port": 8080, "protocol": "TCP"}]
    return endpoint_slice("web-1", ports=ports, **({"addressType": "IPv4", "endpoints": endpoints} | fields))


STORY = {
    "an alias has no endpoints": (service(type="ExternalName", clusterIP=""), [], [], Serving()),
    "all is well": (service(), [slice_of(True, True)], [], Serving("2/2")),
    "one isn't ready, and nothing is wrong": (service(), [slice_of(True, False)], [], Serving("1/2")),
    "of both families, a pod counts once": (service(), [slice_of(True), slice_of(True)], [], Serving("1/1")),
    "the selector means nobody": (
        service(selector={"app": "wbe", "a": "b"}),
        [slice_of()],
        [pod("a")],
        Serving("0/0", ["its selector means no pod: none of namespace default has the labels a=b,app=wbe"]),
    ),
    "nobody has started": (
        service(),
        [slice_of()],
        [pod("a", phase="Pending")],
        Serving(
            "0/0",
            [
                "no pod that its selector means has an address yet: `kubectl -n default describe pod a` says why",
            ],
        ),
    ),
    "everybody has ended": (
        service(),
        [],
        [pod("a", phase="Failed")],
        Serving("0/0", ["all 1 pods that its selector means have ended, such as a"]),
    ),
    "nobody is ready": (
        service(),
        [slice_of(False, False)],
        [],
        Serving("0/2", ["none of its 2 endpoints is ready: `kubectl -n default describe pod a` says why"]),
    ),
    "no selector, no slice": (
        service(selector=None),
        [],
        [pod("a")],
        Serving(
            "0/0", ["it has no selector, and no EndpointSlice with endpoints names it in kubernetes.io/service-name"]
        ),
    ),
    "a slice by hand has the port by another name": (
        service(selector=None),
        [slice_of(True, port="")],
        [],
        Serving("1/1", ["port 80: its EndpointSlices have no port named 'http' as the Service's is; they have ''"]),
    ),
    "no pod has a port of this name": (
        service(ports=NAMED),
        [slice_of(True, port=None)],
        [declaring("a", {"name": "http", "containerPort": 8080})],
        Serving(
            "1/1",
            [
                "port 80: none of its pods has a port named web/TCP; they have http/TCP: correct targetPort, or the "
                "containers' ports"
            ],
        ),
    ),
    "a number that its pods don't declare": (
        service(ports=[{"name": "http", "port": 80}]),
        [slice_of(True)],
        [declaring("a", {"containerPort": 8080})],
        Serving(
            "1/1",
            [],
            ["port 80 leads to 80/TCP of its pods, which declare 8080: if it is refused, correct targetPort"],
        ),
    ),
    "pods that declare nothing, or that number": (
        service(),
        [slice_of(True, True)],
        [declaring("a", {"containerPort": 8080}, {"containerPort": 53, "protocol": "UDP"}), declaring("b")],
        Serving("2/2"),
    ),
    "its load balancer waits": (
        service(type="LoadBalancer"),
        [slice_of(True)],
        [],
        Serving("1/1", ["no load balancer has taken it on"]),
    ),
}


@pytest.mark.parametrize(("asked", "slices", "pods", "said"), STORY.values(), ids=STORY)
def test_what_is_wrong_is_said(asked: Service, slices: list[EndpointSlice], pods: list[Any], said: Serving) -> None:
    assert serving(asked, slices, {pod.key: pod for pod in pods}) == said


@pytest.mark.parametrize(
    ("ports", "pods", "count"),
    [
        pytest.param(HTTP, [declaring("a")], 0, id="a number needs no name"),
        pytest.param(NAMED, [], 0, id="without pods nothing is known"),
        pytest.param(NAMED, [declaring("a")], 1, id="no pod names any"),
        pytest.param(NAMED, [declaring("a", {"name": "web", "containerPort": 1})], 0, id="one does"),
        pytest.param(
            NAMED, [declaring("a", {"name": "web", "containerPort": 1, "protocol": "UDP"})], 1, id="of another protocol"
        ),
        pytest.param(
            NAMED,
            [declaring("a"), declaring("b", {"name": "web", "containerPort": 1})],
            0,
            id="an older version hasn't",
        ),
        pytest.param(NAMED, [declaring("a", going=True)], 0, id="who leaves doesn't count"),
        pytest.param(NAMED, [declaring("a", phase="Succeeded")], 0, id="nor who has ended"),
    ],
)
def test_a_named_target_port_is_looked_for_in_all_pods(
    ports: list[dict[str, Any]], pods: list[Any], count: int
) -> None:
    assert len(unnamed_target_ports(service(ports=ports), pods)) == count

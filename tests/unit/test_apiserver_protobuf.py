"""Protobuf bodies: what is read, what a zero means, and what is refused."""

from __future__ import annotations

import pytest

from kubesvc.api.errors import BadRequest
from kubesvc.apiserver.protobuf import decode, varint


def number(value: int) -> bytes:
    """A varint; negative numbers take ten bytes, as in Go."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    out = b""
    for key, value in fields:
        if isinstance(value, int):
            out += number(key << 3) + number(value)
        else:
            raw = value.encode() if isinstance(value, str) else value
            out += number(key << 3 | 2) + number(len(raw)) + raw
    return out


def body(api_version: str, kind: str, raw: bytes) -> bytes:
    return b"k8s\x00" + message((1, message((1, api_version), (2, kind))), (2, raw), (3, ""), (4, ""))


LABELS = message((11, message((1, "app"), (2, "web"))), (11, message((1, "empty"), (2, ""))))
TIME = message((1, 1_700_000_000), (2, 0))


def test_a_service_as_go_writes_it() -> None:
    """Names, empty strings and zeros that only mean "not given" go; ports keep what they say."""
    metadata = message((1, "web"), (2, ""), (3, "default"), (7, 0), (8, b"")) + LABELS
    target = message((1, 1), (2, 0), (3, "http"))
    port = message((1, "http"), (2, "TCP"), (3, 80), (4, target), (5, 0))
    unset = message((1, ""), (3, 81), (4, message((1, 0), (2, 0), (3, ""))))
    spec = message((1, port), (1, unset), (2, message((1, "app"), (2, "web"))), (3, ""), (13, 0), (20, 0))
    tree = decode(body("v1", "Service", message((1, metadata), (2, spec), (3, message((1, b""))))))
    assert tree["apiVersion"] == "v1"
    assert tree["metadata"]["labels"] == {"app": "web", "empty": ""}
    assert tree["spec"] == {
        "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": "http"}, {"port": 81}],
        "selector": {"app": "web"},
        "allocateLoadBalancerNodePorts": False,  # true unless somebody says so: false was meant
    }
    assert tree["status"] == {"loadBalancer": {}}


def test_embedded_structs_are_part_of_their_parent() -> None:
    """ConfigMapKeySelector embeds a name, Volume a source, Probe a handler: JSON has them inside."""
    key = message((1, message((1, "settings"))), (2, "level"))
    env = message((1, "LEVEL"), (2, ""), (3, message((3, key))))
    probe = message(
        (
            1,
            message((3, message((1, message((1, 0), (2, 8080), (3, "")))))),
        ),
        (4, 5),
    )
    container = message((1, "c"), (7, env), (10, probe))
    volume = message((1, "tmp"), (2, message((2, message((1, ""))))))
    pod = message((1, message((1, "p"))), (2, message((1, volume), (2, container), (4, 0))))
    spec = decode(body("v1", "Pod", pod))["spec"]
    assert spec["containers"][0]["env"] == [
        {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "level"}}}
    ]
    assert spec["containers"][0]["livenessProbe"]["tcpSocket"] == {"port": 8080}
    assert spec["volumes"] == [{"name": "tmp", "emptyDir": {}}]
    assert spec["terminationGracePeriodSeconds"] == 0


def test_bytes_are_base64_times_are_text_and_numbers_have_signs() -> None:
    secret = message((1, message((1, "s"), (8, TIME))), (2, message((1, "key"), (2, b"\x00\xff"))))
    tree = decode(body("v1", "Secret", secret))
    assert tree["data"] == {"key": "AP8="}
    assert tree["metadata"]["creationTimestamp"] == "2023-11-14T22:13:20Z"
    options = decode(body("apps/v1", "DeleteOptions", message((1, -1), (4, "Foreground"))))
    assert (options["gracePeriodSeconds"], options["propagationPolicy"]) == (-1, "Foreground")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"{}", "doesn't start with"),
        (body("example.com/v1", "Thing", b""), 'no kind "Thing" is registered for version "example.com/v1"'),
        (body("v1", "Service", b"\x0a\xff"), "can't be read"),
        (body("v1", "Service", b"\x0a\x05ab"), "longer than its message"),
        (body("v1", "Service", message((99, "x"))), "field 99 of api.core.v1.Service is unknown"),
    ],
    ids=["JSON", "another kind", "cut short", "a length that lies", "a field of a newer version"],
)
def test_what_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        decode(data)


def test_an_unknown_field_that_is_not_set_is_nothing() -> None:
    assert decode(body("v1", "Service", message((99, ""), (98, 0)))) == {"apiVersion": "v1", "kind": "Service"}


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**32, 2**63])
def test_varints(value: int) -> None:
    assert varint(number(value), 0) == (value, len(number(value)))

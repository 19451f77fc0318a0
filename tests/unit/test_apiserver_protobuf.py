"""Protobuf bodies: what Go wrote, read as the JSON it would have written."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.errors import BadRequest
from kubesvc.api.registry import CUSTOM_RESOURCE_DEFINITION, GROUP, KINDS
from kubesvc.apiserver import fields
from kubesvc.apiserver.protobuf import MEDIA_TYPE, decode
from kubesvc.client.transport import Request
from support.apiserver import ADMIN, local_server

# kubectl create deployment web --image=host --replicas=0 --port=80
DEPLOYMENT = (
    b'k8s\x00\n\x15\n\x07apps/v1\x12\nDeployment\x12\xb6\x01\n\x1f\n\x03web\x12\x00\x1a\x00"\x00*\x002\x008\x00B\x00Z\n\n'
    b'\x03app\x12\x03web\x12\x84\x01\x08\x00\x12\x0c\n\n\n\x03app\x12\x03web\x1aj\n\x1c\n\x00\x12\x00\x1a\x00"\x00*\x002\x00'
    b'8\x00B\x00Z\n\n\x03app\x12\x03web\x12J\x12,\n\x04host\x12\x04host*\x002\n\n\x00\x10\x00\x18P"\x00*\x00B\x00j\x00r\x00'
    b"\x80\x01\x00\x88\x01\x00\x90\x01\x00\xa2\x01\x00\x1a\x002\x00B\x00J\x00R\x00X\x00`\x00h\x00\x82\x01\x00\x8a\x01\x00"
    b'\x9a\x01\x00\xc2\x01\x00"\x02\n\x00(\x008\x00\x1a\x0c\x08\x00\x10\x00\x18\x00 \x00(\x008\x00\x1a\x00"\x00'
)
# kubectl create service nodeport np --tcp=80:8080 --node-port=30080
SERVICE = (
    b'k8s\x00\n\r\n\x02v1\x12\x07Service\x12g\n\x1d\n\x02np\x12\x00\x1a\x00"\x00*\x002\x008\x00B\x00Z\t\n\x03app\x12\x02np'
    b'\x12B\n\x1d\n\x0780-8080\x12\x03TCP\x18P"\x07\x08\x00\x10\x90?\x1a\x00(\x80\xeb\x01\x12\t\n\x03app\x12\x02np\x1a\x00'
    b'"\x08NodePort:\x00B\x00R\x00Z\x00`\x00h\x00\x1a\x02\n\x00\x1a\x00"\x00'
)
CATALOGUE = json.loads(resources.files("kubesvc.apiserver").joinpath("protobuf.json").read_bytes())


# ── an encoder, by hand ──────────────────────────────────────────────────────────────────────────────────────────────


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def put(number: int, value: int | str | bytes) -> bytes:
    """One field: a varint for a number, or its length and itself."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def body(api_version: str, kind: str, raw: bytes) -> bytes:
    return b"k8s\0" + put(1, put(1, api_version) + put(2, kind)) + put(2, raw) + put(3, "") + put(4, "")


def spec_of(kind: str, raw: bytes) -> Any:
    """The spec that `raw` is read as, in an object of `kind`."""
    api_version = "v1" if kind in ("Pod", "Service") else "apps/v1"
    return decode(body(api_version, kind, put(2, raw)))["spec"]


# ── what kubectl sends ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_deployment_with_no_replicas_keeps_the_zero():
    """replicas is a pointer in Go, so its zero was meant; minReadySeconds isn't, so its zero was nobody's."""
    assert decode(DEPLOYMENT) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [
                        {"name": "host", "image": "host", "ports": [{"containerPort": 80}], "resources": {}},
                    ]
                },
            },
            "strategy": {},
        },
        "status": {},
    }


def test_a_service_has_nothing_that_was_not_given():
    assert decode(SERVICE)["spec"] == {
        "ports": [{"name": "80-8080", "protocol": "TCP", "port": 80, "targetPort": 8080, "nodePort": 30080}],
        "selector": {"app": "np"},
        "type": "NodePort",
    }


def test_embedded_structs_are_part_of_their_parent():
    """ConfigMapKeySelector embeds a name, Volume a source, Probe a handler: JSON has them inside."""
    key = put(1, put(1, "settings")) + put(2, "level")
    env = put(1, "LEVEL") + put(2, "") + put(3, put(3, key))
    handler = put(3, put(1, put(1, 0) + put(2, 8080) + put(3, "")) + put(2, ""))
    container = put(1, "c") + put(7, env) + put(10, put(1, handler) + put(4, 5))
    volume = put(1, "tmp") + put(2, put(2, put(1, "")))
    spec = spec_of("Pod", put(1, volume) + put(2, container) + put(4, 0))
    assert spec == {
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "containers": [
            {
                "name": "c",
                "env": [{"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "level"}}}],
                "livenessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 5},
            }
        ],
        "terminationGracePeriodSeconds": 0,
    }


# ── one type after the other ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "raw", "expected"),
    [
        pytest.param("Pod", put(11, 0), {}, id="a plain false (hostNetwork) goes"),
        pytest.param("Pod", put(21, 0), {"automountServiceAccountToken": False}, id="false behind a pointer stays"),
        pytest.param("Pod", put(25, -5), {"priority": -5}, id="a negative int32 behind a pointer"),
        pytest.param("Pod", put(5, -(2**63)), {"activeDeadlineSeconds": -(2**63)}, id="the smallest int64"),
        pytest.param("Pod", put(3, "Always") + put(3, ""), {}, id="the last of two values wins, an empty one too"),
        pytest.param("Pod", put(7, put(1, "")), {"nodeSelector": {"": ""}}, id="a map's key and value may be left out"),
        pytest.param(
            "Pod",
            put(14, put(4, 7) + put(4, 8)),
            {"securityContext": {"supplementalGroups": [7, 8]}},
            id="a list of numbers, one by one",
        ),
        pytest.param(
            "Pod",
            put(14, put(4, varint(7) + varint(300))),
            {"securityContext": {"supplementalGroups": [7, 300]}},
            id="a list of numbers, packed",
        ),
        pytest.param(
            "Pod",
            put(14, put(2, 1)) + put(14, put(3, 0)),
            {"securityContext": {"runAsUser": 1, "runAsNonRoot": False}},
            id="two occurrences of a message are one",
        ),
        pytest.param(
            "Pod",
            put(1, put(1, "v") + put(2, put(2, b""))),
            {"volumes": [{"name": "v", "emptyDir": {}}]},
            id="an embedded struct is part of its parent, an empty message is something",
        ),
        pytest.param(
            "Pod",
            put(2, put(1, "c") + put(7, put(1, "") + put(2, "") + put(3, put(1, put(2, ""))))),
            {"containers": [{"name": "c", "env": [{"name": "", "valueFrom": {"fieldRef": {"fieldPath": ""}}}]}]},
            id="what JSON always has, as a name, is kept even when it is empty",
        ),
        pytest.param(
            "Pod",
            put(32, put(1, "memory") + put(2, put(1, "1Gi"))),
            {"overhead": {"memory": "1Gi"}},
            id="a map of quantities",
        ),
        pytest.param("Service", put(1, put(3, 0) + put(4, b"")), {"ports": [{"port": 0}]}, id="an empty targetPort"),
        pytest.param(
            "Service",
            put(1, put(3, 1) + put(4, put(1, 1) + put(2, 0) + put(3, "http"))),
            {"ports": [{"port": 1, "targetPort": "http"}]},
            id="a targetPort by name",
        ),
        pytest.param(
            "Deployment",
            put(4, put(2, put(1, put(1, 0) + put(2, 0)) + put(2, put(1, 1) + put(3, "25%")))),
            {"strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}}},
            id="a zero number-or-text behind a pointer stays",
        ),
        pytest.param("Service", put(900, 5) + put(901, "x"), {}, id="unknown fields are skipped"),
        pytest.param(
            "Service", varint(900 << 3 | 1) + bytes(8) + varint(901 << 3 | 5) + bytes(4), {}, id="fixed ones too"
        ),
    ],
)
def test_reading(kind, raw, expected):
    assert spec_of(kind, raw) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(b"", None, id="Go's zero time is null"),
        pytest.param(put(1, 0) + put(2, 0), "1970-01-01T00:00:00Z", id="the epoch isn't"),
        pytest.param(put(1, 1767225600) + put(2, 999999999), "2026-01-01T00:00:00Z", id="whole seconds"),
        pytest.param(put(1, -1) + put(2, 0), "1969-12-31T23:59:59Z", id="before the epoch"),
    ],
)
def test_times(raw, expected):
    metadata = decode(body("v1", "Pod", put(1, put(8, raw))))["metadata"]
    assert metadata.get("creationTimestamp") == expected


def test_the_kinds_of_bytes():
    """base64 in JSON, except managed fields, which are JSON themselves; micro times keep their fraction."""
    secret = decode(body("v1", "Secret", put(2, put(1, "key") + put(2, b"\xff\x00"))))
    assert secret["data"] == {"key": "/wA="}
    managed = put(17, put(1, "me") + put(7, put(1, b'{"f:spec":{}}')))
    assert decode(body("v1", "Secret", put(1, managed)))["metadata"]["managedFields"] == [
        {"manager": "me", "fieldsV1": {"f:spec": {}}}
    ]
    lease = decode(body("coordination.k8s.io/v1", "Lease", put(2, put(4, put(1, 1) + put(2, 5_000_999)))))
    assert lease["spec"]["renewTime"] == "1970-01-01T00:00:01.005000Z"


@pytest.mark.parametrize(
    ("api_version", "kind", "raw", "expected"),
    [
        ("apps/v1", "DeleteOptions", put(1, 0) + put(4, "Foreground") + put(5, "All"),
         {"gracePeriodSeconds": 0, "propagationPolicy": "Foreground", "dryRun": ["All"]}),
        ("v1", "DeleteOptions", put(2, put(1, "u")), {"preconditions": {"uid": "u"}}),
        ("autoscaling/v1", "Scale", put(2, put(1, 3)), {"spec": {"replicas": 3}}),
        ("v1", "Binding", put(2, put(1, "Node") + put(3, "n1")), {"target": {"kind": "Node", "name": "n1"}}),
        ("policy/v1", "Eviction", put(1, put(1, "p")) + put(2, put(1, 0)),
         {"metadata": {"name": "p"}, "deleteOptions": {"gracePeriodSeconds": 0}}),
    ],
)  # fmt: skip
def test_what_is_sent_beside_the_kinds(api_version, kind, raw, expected):
    """DeleteOptions come in the version of whatever they are sent to."""
    assert decode(body(api_version, kind, raw)) == {"apiVersion": api_version, "kind": kind, **expected}


# ── every field there is ─────────────────────────────────────────────────────────────────────────────────────────────

VALUES: dict[str, bytes | int | str] = {
    "string": "x",
    "bytes": b"x",
    "bool": 1,
    "int32": 1,
    "int64": 1,
    "Time": put(1, 1),
    "MicroTime": put(1, 1),
    "IntOrString": put(2, 1),
    "Quantity": put(1, "1"),
    "Texts": put(1, "x"),
    "FieldsV1": put(1, b"{}"),
    "[]string": put(1, "x"),
}
# Fields of the kubectl's version that the schema's doesn't have yet: clients may send them, and are warned.
NEWER = {
    "bindMountOptions", "defaultUser", "evictionResponders", "healthStatus", "mapping", "mode", "overhead",
    "observedGeneration", "podPreemptionPolicy", "protocol", "runningInUserNamespace", "scheduling", "user",
    "volumeHealth",
}  # fmt: skip


def filled(message: str) -> bytes:
    """A message with every field given."""
    out = b""
    for number, text in CATALOGUE["messages"][message].items():
        kind = text.partition(" ")[2].removeprefix("*")
        held = kind.removeprefix("map ") if kind.startswith("map ") else kind.removeprefix("[]")
        value = VALUES[held] if held in VALUES else filled(held)
        out += put(int(number), put(1, "k") + put(2, value) if kind.startswith("map ") else value)
    return out


# sent as JSON alone: our own kinds, and definitions
SPOKEN = [kind for kind in KINDS.values() if kind.group != GROUP and kind is not CUSTOM_RESOURCE_DEFINITION]


@pytest.mark.parametrize("kind", SPOKEN, ids=lambda kind: kind.kind)
def test_every_field_is_where_the_schema_has_it_and_of_its_type(kind):
    tree = decode(body(kind.api_version, kind.kind, filled(CATALOGUE["kinds"][f"{kind.api_version}/{kind.kind}"])))
    unknown = {line.rstrip('"').rpartition(".")[2] for line in fields.drop_unknown(kind, tree)}
    assert unknown <= NEWER
    assert fields.check_types(kind, tree) == []


# ── what isn't right ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "why"),
    [
        pytest.param(b"{}", "must begin with the bytes", id="JSON"),
        pytest.param(b"k8s\0", "must have apiVersion and kind", id="nothing after the magic"),
        pytest.param(
            body("v1", "Nonsense", b""), 'no kind "Nonsense" is registered for version "v1"', id="no such kind"
        ),
        pytest.param(
            b"k8s\0" + put(1, put(1, "v1") + put(2, "Pod")) + put(3, "gzip"), "not encoded further", id="compressed"
        ),
        pytest.param(
            body("v1", "Service", put(2, put(1, b"\x0a\x05ab"))),
            "Service in protobuf can't be read: spec.ports.name: it is truncated",
            id="a length past the end",
        ),
        pytest.param(body("v1", "Service", put(2, b"\x80")), "spec: it is truncated", id="half a number"),
        pytest.param(body("v1", "Service", put(2, put(3, 1))), "spec.clusterIP: wire type 0 is wrong", id="wrong type"),
        pytest.param(body("v1", "Service", put(2, put(3, b"\xff"))), "spec.clusterIP: 'utf-8' codec", id="not UTF-8"),
        pytest.param(body("v1", "Service", put(2, b"\x18" + b"\xff" * 11)), "more than 64 bits", id="a long number"),
        pytest.param(body("v1", "Service", b"\x0b"), "wire type 3 is unknown", id="a group"),
        pytest.param(body("v1", "Service", b"\x00\x00"), "wrong for field 0", id="field zero"),
        pytest.param(
            body("v1", "Pod", put(1, put(8, put(1, 2**62)))), "metadata.creationTimestamp: ", id="a time out of range"
        ),
        pytest.param(
            body("v1", "Pod", put(1, put(17, put(7, put(1, b"{"))))), "metadata.managedFields.fieldsV1: ", id="no JSON"
        ),
        pytest.param(
            body("v1", "Pod", put(1, put(17, put(7, put(1, b"[" * 100_000))))), "fieldsV1: ", id="much too deep"
        ),
    ],
)
def test_a_refusal_says_what_is_wrong_and_where(given, why):
    with pytest.raises(BadRequest) as refused:
        decode(given)
    assert why in refused.value.message


def attempt(data: bytes) -> None:
    """Decode; a refusal is fine, any other failure is the test's."""
    try:
        assert isinstance(decode(data), dict)
    except BadRequest:
        pass


@pytest.mark.parametrize("whole", [DEPLOYMENT, SERVICE], ids=["deployment", "service"])
def test_no_end_too_early_does_harm(whole):
    for length in range(len(whole)):
        attempt(whole[:length])


@given(st.binary(max_size=200))
def test_random_bytes_do_no_harm(data):
    attempt(data)
    attempt(b"k8s\0" + data)


@given(st.sampled_from(sorted(CATALOGUE["kinds"])), st.binary(max_size=300))
def test_random_objects_do_no_harm(name, data):
    api_version, _, kind = name.rpartition("/")
    attempt(body(api_version, kind, data))


@given(
    st.sampled_from([DEPLOYMENT, SERVICE]), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=4)
)
def test_flipped_bytes_do_no_harm(whole, changes):
    data = bytearray(whole)
    for at, byte in changes:
        data[at % len(data)] = byte
    attempt(bytes(data))


# ── through the server ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_server_takes_protobuf_and_answers_json():
    """A create, a scale, a binding, a delete, all in protobuf; kubectl's Accept gets JSON."""
    headers = {"content-type": MEDIA_TYPE, "accept": f"{MEDIA_TYPE},application/json"}
    async with local_server() as server:

        async def ask(method: str, path: str, content: bytes = b"", **more: str) -> tuple[int, Any]:
            sent = Request(method, path, {}, headers | more, content, ADMIN)
            answer = await server.handler(sent)
            assert answer.content_type == "application/json"
            return answer.status, json.loads(answer.body)

        deployments = "/apis/apps/v1/namespaces/default/deployments"
        code, created = await ask("POST", deployments, DEPLOYMENT)
        assert (code, created["spec"]["replicas"]) == (201, 0)
        assert created["spec"]["template"]["spec"]["restartPolicy"] == "Always"
        scale = body("autoscaling/v1", "Scale", put(1, put(1, "web") + put(3, "default")) + put(2, put(1, 2)))
        code, scaled = await ask("PUT", f"{deployments}/web/scale", scale)
        assert (code, scaled["spec"]["replicas"]) == (200, 2)

        options = body("apps/v1", "DeleteOptions", put(4, "Sideways"))
        code, refused = await ask("DELETE", f"{deployments}/web", options)
        assert code == 422
        assert "Sideways" in refused["message"]
        code, _ = await ask("DELETE", f"{deployments}/web", body("apps/v1", "DeleteOptions", put(4, "Background")))
        assert code == 200

        code, refused = await ask("POST", "/api/v1/namespaces/default/services", DEPLOYMENT)
        assert code == 400
        assert "does not match the expected API version (v1)" in refused["message"]
        code, refused = await ask("POST", deployments, DEPLOYMENT, **{"content-type": "text/plain"})
        assert code == 415
        assert MEDIA_TYPE in refused["message"]

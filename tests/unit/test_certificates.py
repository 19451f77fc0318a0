"""CertificateSigningRequests: what may be asked, who may approve and sign, what the signers sign, when requests go."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kubesvc.api.certificates import CLIENT, NODE_CLIENT, NODE_SERVING, CertificateSigningRequest
from kubesvc.api.errors import Forbidden, Invalid, NotFound
from kubesvc.api.meta import JSON, format_time
from kubesvc.api.registry import CERTIFICATE_SIGNING_REQUEST as CSR
from kubesvc.api.registry import CLUSTER_ROLE, CLUSTER_ROLE_BINDING
from kubesvc.apiserver.server import ApiServer
from kubesvc.client.session import Session
from kubesvc.controllers.certificates.plan import Plan, plan
from kubesvc.controllers.certificates.signing import lifetime
from kubesvc.controllers.config import ControllersConfig
from kubesvc.controllers.main import run
from support.admission import texts
from support.apiserver import Open
from support.certificates import Authority, request_for
from support.watching import Watcher, running, watching

CLIENT_USAGES = ["digital signature", "key encipherment", "client auth"]
SERVER_USAGES = ["digital signature", "server auth"]


def asking(name: str = "r", /, request: str = "", usages: Any = ("client auth",), **spec: Any) -> JSON:
    wanted = {"request": request or request_for("alice"), "usages": list(usages), "signerName": "example.com/s"}
    return {"apiVersion": CSR.api_version, "kind": CSR.kind, "metadata": {"name": name}, "spec": wanted | spec}


async def approve(session: Session, name: str, of: str = "Approved") -> JSON:
    """As `kubectl certificate approve` does."""
    tree = await session.get(CSR, "", name)
    condition = {"type": of, "status": "True", "reason": "Test", "message": "because"}
    tree.setdefault("status", {}).setdefault("conditions", []).append(condition)
    return await session.update(CSR, tree, subresource="approval")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"request": "eHg="}, "PEM block type must be CERTIFICATE REQUEST"),
        ({"request": "!"}, "spec.request: Invalid value"),
        ({"usages": []}, "spec.usages: Required value"),
        ({"usages": ["x"]}, 'spec.usages[0]: Unsupported value: "x"'),
        ({"usages": ["any", "any"]}, 'spec.usages[1]: Duplicate value: "any"'),
        ({"signerName": ""}, "spec.signerName: Required value"),
        ({"signerName": "kubernetes.io/legacy-unknown"}, "the legacy signerName is not allowed via this API version"),
        ({"signerName": "a.b"}, "must be a fully qualified domain and path of the form 'example.com/signer-name'"),
        ({"signerName": "a/b"}, "should be a domain with at least two segments separated by dots"),
        ({"signerName": "a.b/_"}, 'validating label "_"'),
        ({"expirationSeconds": 599}, "may not specify a duration less than 600 seconds (10 minutes)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_wrong_with_a_request_is_said_in_upstreams_words(wrong: JSON, why: str) -> None:
    assert any(why in text for text in texts(CSR, asking(**wrong)))
    assert texts(CSR, asking()) == []


def test_a_request_that_its_key_did_not_sign_is_refused() -> None:
    made = x509.load_pem_x509_csr(base64.b64decode(request_for("alice")))
    der = bytearray(made.public_bytes(Encoding.DER))
    at = der.index(b"alice")
    der[at : at + 5] = b"admin"
    pem = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE REQUEST-----\n"
    assert any("signature" in text for text in texts(CSR, asking(request=base64.b64encode(pem).decode())))


async def test_the_server_says_who_asks_and_nothing_of_it_changes(admin: Session, of: Open) -> None:
    lie = asking(username="somebody", groups=["system:masters"])
    made = await of("alice", "devs", "system:masters").create(CSR, lie)
    assert made["spec"]["username"] == "alice"
    assert made["spec"]["groups"] == ["devs", "system:masters", "system:authenticated"]
    changed = await admin.patch(CSR, "", "r", {"spec": {"username": "bob"}, "status": {"certificate": "eA=="}})
    assert changed["spec"] == made["spec"]
    assert not changed.get("status")


async def test_only_approval_approves_and_only_status_has_the_certificate(admin: Session) -> None:
    await admin.create(CSR, asking())
    tree = await admin.get(CSR, "", "r")
    tree["status"] = {"conditions": [{"type": "Approved", "status": "True"}]}
    with pytest.raises(Invalid, match='updates may not add a condition of type "Approved"'):
        await admin.update(CSR, tree, subresource="status")
    approved = await approve(admin, "r")
    assert approved["status"]["conditions"][0].keys() >= {"lastUpdateTime", "lastTransitionTime"}
    with pytest.raises(Invalid, match="Approved and Denied conditions are mutually exclusive"):
        await approve(admin, "r", "Denied")
    with pytest.raises(Invalid, match='updates may not remove a condition of type "Approved"'):
        await admin.patch(CSR, "", "r", {"status": {"conditions": None}}, subresource="approval")
    with pytest.raises(Invalid, match=r"status.certificate"):
        await admin.patch(CSR, "", "r", {"status": {"certificate": "eA=="}}, subresource="status")


async def test_who_approves_or_signs_needs_the_verb_on_that_signer(admin: Session, of: Open) -> None:
    rules = [
        {"verbs": ["*"], "apiGroups": [CSR.group], "resources": [CSR.plural, "*/approval", "*/status"]},
        {"verbs": ["approve"], "apiGroups": [CSR.group], "resources": ["signers"], "resourceNames": ["example.com/*"]},
    ]
    await admin.create(CLUSTER_ROLE, {"metadata": {"name": "approver"}, "rules": rules})
    subject = {"kind": "User", "name": "ann"}
    reference = {"kind": "ClusterRole", "name": "approver"}
    await admin.create(CLUSTER_ROLE_BINDING, {"metadata": {"name": "ann"}, "roleRef": reference, "subjects": [subject]})
    ann = of("ann")
    await admin.create(CSR, asking("own"))
    await admin.create(CSR, asking("other", signerName="other.org/s"))
    await approve(ann, "own")
    with pytest.raises(Forbidden, match='user not permitted to approve requests with signerName "other.org/s"'):
        await approve(ann, "other")
    tree = await ann.get(CSR, "", "own")
    tree["status"]["conditions"].append({"type": "Failed", "status": "True"})
    with pytest.raises(Forbidden, match='user not permitted to sign requests with signerName "example.com/s"'):
        await ann.update(CSR, tree, subresource="status")


async def test_nobody_asks_to_be_a_master(admin: Session) -> None:
    wanted = asking(request=request_for("eve", "system:masters"), signerName=CLIENT)
    with pytest.raises(Forbidden, match=f"use of {CLIENT} signer with system:masters group is not allowed"):
        await admin.create(CSR, wanted)


NOW = datetime(2026, 1, 2, tzinfo=UTC)


def view(name: str = "system:node:n1", /, *groups: str, hosts: tuple[str, ...] = (), by: str = "system:node:n1",
         signer: str = NODE_CLIENT, usages: Any = CLIENT_USAGES, age: timedelta = timedelta(),
         **status: Any) -> CertificateSigningRequest:  # fmt: skip
    tree = asking(
        request=request_for(name, *(groups or ("system:nodes",)), hosts=hosts),
        signerName=signer, usages=list(usages), username=by,
    )  # fmt: skip
    tree["metadata"]["creationTimestamp"] = format_time(NOW - age)
    return msgspec.convert(tree | {"status": status}, CertificateSigningRequest)


def decided(of: str, ago: timedelta = timedelta()) -> JSON:
    return {"conditions": [{"type": of, "status": "True", "lastUpdateTime": format_time(NOW - ago)}]}


APPROVED = decided("Approved")


@pytest.mark.parametrize(
    ("request_", "ask"),
    [
        (view(), "selfnodeclient"),
        (view(by="system:bootstrap:abcdef"), "nodeclient"),
        (view("system:node:n2"), "nodeclient"),  # which a node may not
        (view("system:node:n1", "system:nodes", "system:masters"), ""),
        (view("n1"), ""),
        (view(hosts=("192.0.2.1",)), ""),
        (view(usages=["client auth"]), ""),
        (view(signer=NODE_SERVING, usages=SERVER_USAGES, hosts=("192.0.2.1",)), ""),
        (view(signer=CLIENT), ""),
    ],
)
def test_only_nodes_client_certificates_are_approved_by_nobody(request_: CertificateSigningRequest, ask: str) -> None:
    assert plan(request_, NOW).ask == ask


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (view(**APPROVED), ""),
        (view(signer=NODE_SERVING, usages=SERVER_USAGES, hosts=("192.0.2.1", "n1"), **APPROVED), ""),
        (view("alice", "devs", signer=CLIENT, usages=["client auth"], **APPROVED), ""),
        (view("x", "others", **APPROVED), "subject organization is not system:nodes"),
        (view("x", **APPROVED), "subject common name does not begin with system:node: "),
        (view(hosts=("n1",), **APPROVED), "DNS subjectAltNames are not allowed"),
        (view(hosts=("192.0.2.1",), **APPROVED), "IP subjectAltNames are not allowed"),
        (view(usages=["any"], **APPROVED), "usages did not match"),
        (view(signer=NODE_SERVING, usages=SERVER_USAGES, **APPROVED), "DNS or IP subjectAltName is required"),
        (view(signer=CLIENT, usages=["server auth"], **APPROVED), "invalid usage for client certificate: server auth"),
        (view(signer=CLIENT, usages=["digital signature"], **APPROVED),
         "missing required usage for client certificate: client auth"),
    ],
)  # fmt: skip
def test_a_signer_signs_what_it_is_for(request_: CertificateSigningRequest, why: str) -> None:
    found = plan(request_, NOW)
    assert found.sign is not bool(why)
    assert found.fail.startswith(why) if why else not found.fail


@pytest.mark.parametrize(
    ("request_", "goes"),
    [
        (view(age=timedelta(hours=23), signer=CLIENT), False),
        (view(age=timedelta(hours=25), signer=CLIENT), True),
        (view(age=timedelta(hours=25), **decided("Approved")), True),
        (view(**decided("Denied", timedelta(minutes=59))), False),
        (view(**decided("Denied", timedelta(minutes=61))), True),
        (view(**decided("Failed", timedelta(minutes=61))), True),
        (view(certificate="eA==", **decided("Approved", timedelta(minutes=61))), True),
    ],
)
def test_requests_go_after_upstreams_times(request_: CertificateSigningRequest, goes: bool) -> None:
    found = plan(request_, NOW)
    assert found.remove is goes
    assert found == Plan(remove=True) if goes else found.wait is not None


def test_somebody_elses_signer_is_left_alone() -> None:
    found = plan(view(signer="example.com/s", **APPROVED), NOW)
    assert (found.sign, found.fail, found.ask) == (False, "", "")


def test_a_certificate_lives_as_long_as_asked_within_bounds() -> None:
    day = timedelta(days=1)
    assert lifetime(None, day) == day
    assert lifetime(3600, day) == timedelta(hours=1)
    assert lifetime(3600 * 48, day) == day
    assert lifetime(1, day) == timedelta(minutes=10)


@pytest.fixture
async def signing(server: ApiServer, admin: Session, of: Open, tmp_path: Path) -> AsyncIterator[Watcher]:
    """The controllers, with an authority."""
    Authority(tmp_path)
    config = ControllersConfig(
        pod_cidrs=(ip_network("10.244.0.0/16"),), ca_pem="PEM", signer=tmp_path, signing_duration=7200.0
    )
    async with watching(admin, CSR) as see, running(run(of("system:kubesvc:controllers"), config)):
        yield see


async def until(
    see: Watcher, name: str, look: Callable[[CertificateSigningRequest], bool]
) -> CertificateSigningRequest:
    def found() -> CertificateSigningRequest | None:
        request: CertificateSigningRequest | None = see.get(CSR, name, "")
        return request if request is not None and look(request) else None

    request = await see.until(found, name)
    assert request is not None
    return request


async def test_a_nodes_own_certificate_is_approved_and_signed(signing: Watcher, of: Open, tmp_path: Path) -> None:
    node = of("system:node:n1", "system:nodes")
    wanted = asking("n1", request_for("system:node:n1", "system:nodes"), CLIENT_USAGES, signerName=NODE_CLIENT)
    await node.create(CSR, wanted)
    found = await until(signing, "n1", lambda r: bool(r.status.certificate))
    certificate = x509.load_pem_x509_certificate(found.status.certificate)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes()))
    assert certificate.subject.rfc4514_string() == "CN=system:node:n1,O=system:nodes"
    assert certificate.not_valid_after_utc - datetime.now(UTC) < timedelta(hours=2, minutes=1)
    assert found.status.conditions[0].reason == "AutoApproved"


async def test_another_nodes_certificate_waits_for_somebody(signing: Watcher, of: Open, admin: Session) -> None:
    node, starts = of("system:node:n1", "system:nodes"), of("system:bootstrap:abcdef", "system:bootstrappers")
    for asker, name in ((node, "theft"), (starts, "first")):
        wanted = asking(name, request_for("system:node:n2", "system:nodes"), CLIENT_USAGES, signerName=NODE_CLIENT)
        await asker.create(CSR, wanted)
    await until(signing, "first", lambda r: bool(r.status.certificate))
    assert not (await admin.get(CSR, "", "theft")).get("status")


async def test_what_a_signer_refuses_fails(signing: Watcher, admin: Session) -> None:
    await admin.create(CSR, asking(usages=["server auth"], signerName=CLIENT))
    await approve(admin, "r")
    found = await until(signing, "r", lambda r: r.condition("Failed") is not None)
    assert found.status.conditions[1].message == "invalid usage for client certificate: server auth"
    with pytest.raises(NotFound):
        await admin.get(CSR, "", "other")

"""What is to be done about one request: approve it, sign it, say why it can't be signed, remove it, or look again.

    kube-apiserver-client           usages: client auth, digital signature, key encipherment alone
    kube-apiserver-client-kubelet   O=system:nodes, CN=system:node:…, no other names; client auth
    kubelet-serving                 the same subject, DNS names or addresses and nothing else; server auth

Follows pkg/apis/certificates/v1/helpers.go and pkg/controller/certificates/{approver,cleaner,signer}.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID

from kubesvc.api.certificates import CLIENT, NODE_CLIENT, NODE_SERVING, CertificateSigningRequest
from kubesvc.api.meta import parse_time

KEPT = timedelta(hours=1)  # of what was approved, denied or has failed
PATIENCE = timedelta(hours=24)  # with what nobody decides
_NODE = "system:node:"
_ALWAYS, _OPTIONAL = "digital signature", "key encipherment"


class Plan(msgspec.Struct, frozen=True):
    """`ask` is the subresource that whoever asked must be allowed to create for approval, `say` the message then;
    `fail` why no certificate can be made; `wait` when to look again, in seconds."""

    ask: str = ""
    say: str = ""
    sign: bool = False
    fail: str = ""
    remove: bool = False
    wait: float | None = None


def plan(request: CertificateSigningRequest, now: datetime) -> Plan:
    ends = end_of_life(request)
    left = (ends - now).total_seconds()
    if left <= 0:
        return Plan(remove=True)
    if request.condition("Denied") or request.condition("Failed") or request.status.certificate:
        return Plan(wait=left)
    if request.condition("Approved"):
        problem = refusal(request)
        signs = request.spec.signer_name in (CLIENT, NODE_CLIENT, NODE_SERVING)
        return Plan(sign=signs and not problem, fail=problem if signs else "", wait=left)
    if request.spec.signer_name == NODE_CLIENT and not refusal(request):
        parsed = x509.load_pem_x509_csr(request.spec.request)
        if request.spec.username == _common_name(parsed):
            text = "Auto approving self kubelet client certificate after SubjectAccessReview."
            return Plan(ask="selfnodeclient", say=text, wait=left)
        return Plan(
            ask="nodeclient", say="Auto approving kubelet client certificate after SubjectAccessReview.", wait=left
        )
    return Plan(wait=left)


def end_of_life(request: CertificateSigningRequest) -> datetime:
    """When the request itself is of no more use: a while after it was decided, or when its certificate expires."""
    if (certificate := request.status.certificate) and (expires := _expiry(certificate)) is not None:
        return min(expires, _decided(request))
    return _decided(request)


def _expiry(certificate: bytes) -> datetime | None:
    try:
        return x509.load_pem_x509_certificate(certificate).not_valid_after_utc
    except ValueError:
        return None  # another signer's, whatever that wrote


def _decided(request: CertificateSigningRequest) -> datetime:
    decided = [request.condition(of) for of in ("Approved", "Denied", "Failed")]
    times = [parse_time(c.last_update_time) + KEPT for c in decided if c is not None and c.last_update_time]
    if times and (request.status.certificate or request.condition("Denied") or request.condition("Failed")):
        return min(times)
    created = request.metadata.creation_timestamp
    assert created is not None
    return parse_time(created) + PATIENCE


def refusal(request: CertificateSigningRequest) -> str:
    """Why its signer doesn't sign it, in upstream's words; "" when it does."""
    try:
        parsed = x509.load_pem_x509_csr(request.spec.request)
        names = _alternatives(parsed)
    except ValueError as error:
        return f"unable to parse csr: {error}"
    usages = set(request.spec.usages)
    if request.spec.signer_name == CLIENT:
        if unknown := sorted(usages - {_ALWAYS, _OPTIONAL, "client auth"}):
            return f"invalid usage for client certificate: {unknown[0]}"
        return "" if "client auth" in usages else "missing required usage for client certificate: client auth"
    if request.spec.signer_name not in (NODE_CLIENT, NODE_SERVING):
        return ""
    organisations = parsed.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    if [str(part.value) for part in organisations] != ["system:nodes"]:
        return "subject organization is not system:nodes"
    serving = request.spec.signer_name == NODE_SERVING
    if serving and not (names["DNS"] or names["IP"]):
        return "DNS or IP subjectAltName is required"
    for of in ("email", "URI") if serving else ("DNS", "email", "IP", "URI"):
        if names[of]:
            return f"{of} subjectAltNames are not allowed"
    wanted = {_ALWAYS, "server auth" if serving else "client auth"}
    if usages not in (wanted, wanted | {_OPTIONAL}):
        return f"usages did not match {sorted(wanted | {_OPTIONAL})}"
    if not _common_name(parsed).startswith(_NODE):
        return "subject common name does not begin with system:node: "
    return ""


def _common_name(request: x509.CertificateSigningRequest) -> str:
    found = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else ""


def _alternatives(request: x509.CertificateSigningRequest) -> dict[str, bool]:
    """Which sorts of alternative names it has. Raises ValueError for a sort that no signer signs."""
    found = dict.fromkeys(("DNS", "email", "IP", "URI"), False)
    sorts: dict[object, str] = {x509.DNSName: "DNS", x509.RFC822Name: "email", x509.IPAddress: "IP"}
    sorts[x509.UniformResourceIdentifier] = "URI"
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return found
    for name in names:
        if type(name) not in sorts:
            raise ValueError(f"a subjectAltName of type {type(name).__name__}")
        found[sorts[type(name)]] = True
    return found

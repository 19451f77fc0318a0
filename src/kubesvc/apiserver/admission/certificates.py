"""The rules of certificates.k8s.io: who asks is written down by the server; what was asked never changes; only
`/approval` approves and denies, only `/status` carries the certificate.

Source: pkg/registry/certificates/certificates/strategy.go, pkg/apis/certificates/validation/validation.go.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from cryptography import x509

from kubesvc.api import names
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON, format_time
from kubesvc.api.registry import CERTIFICATE_SIGNING_REQUEST
from kubesvc.apiserver.admission.causes import duplicate, forbidden, invalid, not_supported, required
from kubesvc.apiserver.admission.context import Context
from kubesvc.apiserver.admission.rules import Rules

APPROVED, DENIED, FAILED = "Approved", "Denied", "Failed"
LEGACY = "kubernetes.io/legacy-unknown"
SHORTEST = 600  # seconds
USAGES = (
    "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment",
    "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel",
    "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime",
    "server auth", "signing", "timestamping",
)  # fmt: skip
_CONDITIONS = "status.conditions"


def prepare(new: JSON, old: JSON | None, context: Context) -> None:
    if old is None:
        spec = new.setdefault("spec", {})
        for field in ("username", "uid", "groups", "extra"):
            spec.pop(field, None)
        spec["username"] = context.user
        if context.groups:
            spec["groups"] = list(context.groups)
        if context.uid:
            spec["uid"] = context.uid
        if context.extra:
            spec["extra"] = {name: list(values) for name, values in context.extra}
        new["status"] = {}
        return
    new["spec"] = old["spec"]
    before = old.get("status") or {}
    if context.subresource == "":
        new["status"] = before
        return
    status = new["status"] = new.get("status") or {}
    if context.subresource == "approval":
        status.pop("certificate", None)
        if "certificate" in before:
            status["certificate"] = before["certificate"]
    else:
        _keep_decisions(status, before)
    now = format_time(context.now)
    for condition in status.get("conditions") or ():
        condition["lastUpdateTime"] = condition.get("lastUpdateTime") or now
        same = (condition.get("type"), condition.get("status"))
        known = (c for c in before.get("conditions") or () if (c.get("type"), c.get("status")) == same)
        since = next((c["lastTransitionTime"] for c in known if c.get("lastTransitionTime")), now)
        condition["lastTransitionTime"] = condition.get("lastTransitionTime") or since


def _keep_decisions(status: JSON, before: JSON) -> None:
    """Of an update of the status, Approved and Denied stay as they were where it neither adds nor removes one."""
    conditions = status.get("conditions") or []
    for of in (APPROVED, DENIED):
        kept = _of(before, of)
        places = [at for at, c in enumerate(conditions) if c.get("type") == of]
        if len(kept) == len(places):
            for at, condition in zip(places, kept, strict=True):
                conditions[at] = dict(condition)


def _of(status: JSON, of: str) -> list[JSON]:
    return [c for c in status.get("conditions") or () if c.get("type") == of]


def validate(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    causes = [*_spec(new.get("spec") or {}), *_conditions(new.get("status") or {})]
    if old is not None:
        causes += _update(new.get("status") or {}, old.get("status") or {}, context.subresource)
    return causes


def _spec(spec: JSON) -> Iterator[Cause]:
    if why := problem(spec.get("request")):
        yield invalid("spec.request", spec.get("request"), why)
    usages: list[str] = spec.get("usages") or []
    if not usages:
        yield required("spec.usages")
    for at, usage in enumerate(usages):
        if usage not in USAGES:
            yield not_supported(f"spec.usages[{at}]", usage, USAGES)
        if usage in usages[:at]:
            yield duplicate(f"spec.usages[{at}]", usage)
    signer = spec.get("signerName") or ""
    if signer == LEGACY:
        yield invalid("spec.signerName", signer, "the legacy signerName is not allowed via this API version")
    else:
        yield from _signer(signer, "spec.signerName")
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < SHORTEST:
        why = "may not specify a duration less than 600 seconds (10 minutes)"
        yield invalid("spec.expirationSeconds", seconds, why)


def problem(request: Any) -> str:
    """Why this (base64 of PEM) isn't a request signed with its own key; "" when it is."""
    try:
        pem = base64.b64decode(request or "", validate=True)
        if b"-----BEGIN CERTIFICATE REQUEST-----" not in pem:
            return "PEM block type must be CERTIFICATE REQUEST"
        found = x509.load_pem_x509_csr(pem)
        return "" if found.is_signature_valid else "the signature of the request is not valid"
    except Exception as error:  # cryptography raises several kinds, and each means "no"
        return f"the request can't be parsed: {error}"


def _signer(name: str, path: str) -> Iterator[Cause]:
    if not name:
        yield required(path)
        return
    domain, slash, rest = name.partition("/")
    if not slash or "/" in rest:
        why = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        yield invalid(path, name, why)
        return
    labels = domain.split(".")
    for label in labels:
        yield from (invalid(path, domain, f'validating label "{label}": {why}') for why in names.label(label))
    if len(labels) < 2:
        yield invalid(path, domain, "should be a domain with at least two segments separated by dots")
    for label in rest.split("."):
        yield from (invalid(path, rest, f'validating label "{label}": {why}') for why in names.subdomain(label))


def _conditions(status: JSON) -> Iterator[Cause]:
    seen: set[str] = set()
    for at, condition in enumerate(status.get("conditions") or ()):
        path, of, said = f"{_CONDITIONS}[{at}]", condition.get("type") or "", condition.get("status") or ""
        allowed = ("True",) if of in (APPROVED, DENIED, FAILED) else ("False", "True", "Unknown")
        if not of:
            yield required(f"{path}.type")
        if not said:
            yield required(f"{path}.status")
        elif said not in allowed:
            yield not_supported(f"{path}.status", said, allowed)
        if (of == APPROVED and DENIED in seen) or (of == DENIED and APPROVED in seen):
            yield invalid(f"{path}.type", of, "Approved and Denied conditions are mutually exclusive")
        if of in seen:
            yield duplicate(f"{path}.type", of)
        seen.add(of)


def _update(new: JSON, old: JSON, subresource: str) -> Iterator[Cause]:
    for of in (APPROVED, DENIED, FAILED):
        found, before = _of(new, of), _of(old, of)
        if len(found) < len(before):
            yield forbidden(_CONDITIONS, f'updates may not remove a condition of type "{of}"')
        elif subresource != "approval" and of != FAILED:
            if len(found) > len(before):
                yield forbidden(_CONDITIONS, f'updates may not add a condition of type "{of}"')
            elif found != before:
                yield forbidden(_CONDITIONS, f'updates may not modify a condition of type "{of}"')
    certificate, before_ = new.get("certificate"), old.get("certificate")
    if certificate != before_:
        if subresource != "status":
            yield forbidden("status.certificate", "updates may not set certificate content")
        elif before_:
            yield forbidden("status.certificate", "updates may not modify existing certificate content")
        elif why := _chain_problem(certificate):
            yield invalid("status.certificate", "<certificate data>", why)


def _chain_problem(certificate: Any) -> str:
    try:
        x509.load_pem_x509_certificates(base64.b64decode(certificate or "", validate=True))
    except Exception as error:
        return f"must be PEM blocks of certificates: {error}"
    return ""


def organisations(request: Any) -> set[str]:
    """The organisations that the subject of a request names."""
    subject = x509.load_pem_x509_csr(base64.b64decode(request or "")).subject
    return {str(part.value) for part in subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)}


ADMITS = ((CERTIFICATE_SIGNING_REQUEST, Rules(prepare=prepare, validate=validate)),)

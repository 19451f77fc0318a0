"""Who may approve and who may sign: verbs on a signer, beyond those on the request itself.

Follows plugin/pkg/admission/certificates: CertificateApproval, CertificateSigning, CertificateSubjectRestriction.
"""

from __future__ import annotations

from kubesvc.api import certificates
from kubesvc.api.meta import JSON
from kubesvc.api.registry import CERTIFICATES
from kubesvc.apiserver.access.attributes import MASTERS, Attributes
from kubesvc.apiserver.access.rbac import Rbac
from kubesvc.apiserver.admission.certificates import organisations
from kubesvc.client.transport import User


def refusal(rbac: Rbac, user: User | None, subresource: str, new: JSON, old: JSON | None) -> str:
    """Why `user` (None: the server itself) may not write this request; "" when they may."""
    spec: JSON = new.get("spec") or {}
    signer = spec.get("signerName") or ""
    if old is None:
        if signer == certificates.CLIENT and MASTERS in organisations(spec.get("request")):
            return f"use of {signer} signer with {MASTERS} group is not allowed"
        return ""
    if user is None or MASTERS in user.groups or not subresource:
        return ""
    if subresource == "approval":
        if not _may(rbac, user, "approve", signer):
            return f'user not permitted to approve requests with signerName "{signer}"'
    elif (new.get("status") or {}) != (old.get("status") or {}) and not _may(rbac, user, "sign", signer):
        return f'user not permitted to sign requests with signerName "{signer}"'
    return ""


def _may(rbac: Rbac, user: User, verb: str, signer: str) -> bool:
    names = (signer, f"{signer.partition('/')[0]}/*")
    return any(rbac.allow(user, Attributes(verb, CERTIFICATES, "signers", "", name)) for name in names)

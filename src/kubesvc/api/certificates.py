"""certificates.k8s.io/v1 CertificateSigningRequest: one asks, one approves, a signer signs."""

from __future__ import annotations

from kubesvc.api.meta import Condition, Object, Struct

CLIENT = "kubernetes.io/kube-apiserver-client"
NODE_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
NODE_SERVING = "kubernetes.io/kubelet-serving"


class RequestSpec(Struct, frozen=True):
    """`request` is PEM; `username` and `groups` are who asked, as the API server knew them."""

    request: bytes = b""
    signer_name: str = ""
    expiration_seconds: int | None = None
    usages: list[str] = []
    username: str = ""
    groups: list[str] = []


class RequestCondition(Condition, frozen=True):
    last_update_time: str | None = None


class RequestStatus(Struct, frozen=True):
    conditions: list[RequestCondition] = []
    certificate: bytes = b""


class CertificateSigningRequest(Object, frozen=True):
    spec: RequestSpec = RequestSpec()
    status: RequestStatus = RequestStatus()

    def condition(self, of: str) -> RequestCondition | None:
        """The condition of this type, if it is true."""
        return next((c for c in self.status.conditions if c.type == of and c.status == "True"), None)

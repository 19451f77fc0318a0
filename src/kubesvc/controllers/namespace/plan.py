"""What a namespace needs next: its ServiceAccount and CA, or to be emptied, or to be let go.

Active ──► ServiceAccount default, ConfigMap kube-root-ca.crt
Terminating ──► delete everything in it ──► (contents gone) ──► finalize: the server drops the object
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kubesvc.api.core import ConfigMap, Namespace
from kubesvc.api.meta import JSON

CA_NAME = "kube-root-ca.crt"
FINALIZER = "kubernetes"


class Plan(msgspec.Struct, frozen=True):
    """`account` and `ca` are objects to create or, for `ca` with `ca_found`, to patch in place."""

    account: JSON | None = None
    ca: JSON | None = None
    ca_found: bool = False
    empty: bool = False
    finalize: JSON | None = None


def plan(
    namespace: Namespace, has_account: bool, ca: ConfigMap | None, ca_pem: str, remaining: Sequence[str] | None
) -> Plan:
    """`remaining` names the resources that still have objects; None when that isn't known, as for one that lives."""
    if namespace.metadata.deletion_timestamp is not None:
        if FINALIZER not in namespace.spec.finalizers:
            return Plan()
        if remaining is None or remaining:
            return Plan(empty=True)
        return Plan(finalize=finalized(namespace))
    name = namespace.name
    account: JSON = {"metadata": {"name": "default", "namespace": name}}
    wanted = {"ca.crt": ca_pem}
    published: JSON = {"metadata": {"name": CA_NAME, "namespace": name}, "data": wanted}
    right = ca is not None and ca.data == wanted
    return Plan(
        account=None if has_account else account,
        ca=None if right or not ca_pem else published,
        ca_found=ca is not None,
    )


def finalized(namespace: Namespace) -> JSON:
    """The body for namespaces/finalize: the namespace without our finalizer."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": namespace.name,
            "uid": namespace.metadata.uid,
            "resourceVersion": namespace.metadata.resource_version,
        },
        "spec": {"finalizers": [f for f in namespace.spec.finalizers if f != FINALIZER]},
    }

"""The roles and bindings every cluster has: upstream's, for the kinds served here, and one for each of our own rooms.

A rule is (verbs, API groups, resources[, names]), each as words; `/…` in place of resources is a path. Made at every
start, as upstream reconciles them: what is missing comes back, unless the annotation autoupdate says false.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubesvc.api.certificates import CLIENT, NODE_CLIENT, NODE_SERVING
from kubesvc.api.meta import JSON
from kubesvc.api.registry import CERTIFICATES, RBAC, stored
from kubesvc.api.registry import GROUP as BALANCING

AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"
_READ, _ALL = "get list watch", "create delete deletecollection get list patch update watch"
_WRITE = "create delete deletecollection patch update"
GARBAGE = f"{_READ} delete deletecollection"
_CORE, _WORK = "''", "apps"

Rule = tuple[str, ...]

_VIEWED: tuple[tuple[str, str], ...] = (
    (_CORE, "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers "
            "replicationcontrollers/scale serviceaccounts services services/status"),
    (_CORE, "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status "
            "resourcequotas resourcequotas/status namespaces"),
    ("discovery.k8s.io", "endpointslices"),
    (_WORK, "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status "
            "replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status"),
    ("autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    ("batch", "cronjobs cronjobs/status jobs jobs/status"),
    ("policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    ("networking.k8s.io", "ingresses ingresses/status networkpolicies"),
)  # fmt: skip
_EDITED: tuple[tuple[str, str], ...] = (
    (_CORE, "pods pods/attach pods/exec pods/portforward pods/proxy configmaps events persistentvolumeclaims "
            "replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy"),
    (_WORK, "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets "
            "statefulsets/scale"),
    ("autoscaling", "horizontalpodautoscalers"),
    ("batch", "cronjobs jobs"),
    ("policy", "poddisruptionbudgets"),
    ("networking.k8s.io", "ingresses networkpolicies"),
)  # fmt: skip
_EVENTS: tuple[Rule, ...] = (("create patch update", "'' events.k8s.io", "events"),)
_SERVICES: tuple[Rule, ...] = (
    ("list watch", _CORE, "services"),
    ("list watch", "discovery.k8s.io", "endpointslices"),
)


def _garbage() -> Iterator[Rule]:
    """What is collected, and what is in a namespace that goes, is of any kind; whoever watches it may end it."""
    for group in sorted({kind.group for kind in stored()}):
        plurals = " ".join(kind.plural for kind in stored() if kind.group == group)
        yield f"{GARBAGE} patch", group or _CORE, plurals


ROLES: dict[str, tuple[Rule, ...]] = {
    "cluster-admin": (("*", "*", "*"), ("*", "/*")),
    "system:discovery": (
        ("get", "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/"),
    ),
    "system:public-info-viewer": (("get", "/healthz /livez /readyz /version /version/"),),
    "system:monitoring": (("get", "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*"),),
    "system:basic-user": (
        ("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
        ("create", "authentication.k8s.io", "selfsubjectreviews"),
    ),
    "system:service-account-issuer-discovery": (
        (
            "get",
            "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
        ),
    ),
    "system:auth-delegator": (
        ("create", "authentication.k8s.io", "tokenreviews"),
        ("create", "authorization.k8s.io", "subjectaccessreviews"),
    ),
    "system:aggregate-to-view": tuple((_READ, *kinds) for kinds in _VIEWED),
    "system:aggregate-to-edit": (
        (_READ, _CORE, "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
        ("impersonate", _CORE, "serviceaccounts"),
        *((_WRITE, *kinds) for kinds in _EDITED),
        ("create", _CORE, "pods/eviction serviceaccounts/token"),
        (_ALL, "coordination.k8s.io", "leases"),
    ),
    "system:aggregate-to-admin": (
        ("create", "authorization.k8s.io", "localsubjectaccessreviews"),
        (_ALL, RBAC, "rolebindings roles"),
    ),
    "system:node-proxier": (
        ("list watch", _CORE, "endpoints services"),
        (_READ, _CORE, "nodes"),
        *_EVENTS,
        ("list watch", "discovery.k8s.io", "endpointslices"),
        ("list watch", "networking.k8s.io", "servicecidrs"),
    ),
    "system:node": (
        ("create", "authentication.k8s.io", "tokenreviews"),
        ("create", "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
        (_READ, _CORE, "services"),
        ("create get list patch update watch", _CORE, "nodes"),
        ("patch update", _CORE, "nodes/status"),
        *_EVENTS,
        ("delete get list watch", _CORE, "pods"),
        ("patch update", _CORE, "pods/status"),
        ("create", _CORE, "serviceaccounts/token"),
        (_READ, _CORE, "configmaps secrets"),
        ("get", _CORE, "persistentvolumeclaims persistentvolumes"),
        ("create get list patch update watch", "coordination.k8s.io", "leases"),
        ("create get list watch", CERTIFICATES, "certificatesigningrequests"),
    ),
    "system:node-bootstrapper": (("create get list watch", CERTIFICATES, "certificatesigningrequests"),),
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": (
        ("create", CERTIFICATES, "certificatesigningrequests/nodeclient"),
    ),
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": (
        ("create", CERTIFICATES, "certificatesigningrequests/selfnodeclient"),
    ),
    **{
        f"system:certificates.k8s.io:{signer}-approver": (
            ("approve", CERTIFICATES, "signers", f"kubernetes.io/{signer}"),
        )
        for signer in ("kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving", "legacy-unknown")
    },
    # ── our own rooms ────────────────────────────────────────────────────────────────────────────────────────────
    "system:kubesvc:dns": (
        *_SERVICES,
        ("list watch", _CORE, "namespaces nodes pods"),
        ("list watch", "networking.k8s.io", "servicecidrs"),
        *_EVENTS,
    ),
    "system:kubesvc:node": (("list watch", "discovery.k8s.io", "endpointslices"),),
    "system:kubesvc:load-balancer": (
        ("list watch", _CORE, "namespaces nodes"),
        ("list patch watch", _CORE, "services"),
        ("patch", _CORE, "services/status"),
        ("list watch", BALANCING, "ipaddresspools"),
        ("patch", BALANCING, "ipaddresspools/status"),
        *_EVENTS,
    ),
    "system:kubesvc:announcer": (
        ("list watch", BALANCING, "bgpadvertisements bgppeers ipaddresspools l2advertisements"),
        ("patch", BALANCING, "bgppeers/status"),
    ),
    "system:kubesvc:controllers": (
        *_garbage(),
        (
            "create",
            _CORE,
            "configmaps endpoints persistentvolumeclaims persistentvolumes pods pods/binding serviceaccounts",
        ),
        (
            "patch",
            _CORE,
            "nodes/status persistentvolumeclaims/status persistentvolumes/status pods/status "
            "replicationcontrollers/status",
        ),
        ("patch", "apps", "daemonsets/status deployments/status replicasets/status statefulsets/status"),
        ("create", "batch", "jobs"),
        ("patch", "batch", "cronjobs/status jobs/status"),
        ("patch", "policy", "poddisruptionbudgets/status"),
        ("patch", "networking.k8s.io", "servicecidrs/status"),
        ("create", "apps", "controllerrevisions replicasets"),
        ("create", "discovery.k8s.io", "endpointslices"),
        ("update", _CORE, "namespaces/finalize"),
        ("create", "authorization.k8s.io", "subjectaccessreviews"),
        ("update", CERTIFICATES, "certificatesigningrequests/approval certificatesigningrequests/status"),
        ("approve", CERTIFICATES, "signers", NODE_CLIENT),
        ("sign", CERTIFICATES, "signers", f"{CLIENT} {NODE_CLIENT} {NODE_SERVING}"),
        *_EVENTS,
    ),
}

CUSTOM_KINDS = "system:kubesvc:custom-kinds"
"""ClusterRole of the controllers on what definitions define: its rules follow the definitions."""
ROLES[CUSTOM_KINDS] = ()

AGGREGATED = {"admin": "admin", "edit": "edit", "view": "view"}
"""ClusterRole -> which label's roles it is made of."""

_LABELS = {
    "system:aggregate-to-view": ("view",),
    "system:aggregate-to-edit": ("edit",),
    "system:aggregate-to-admin": ("admin",),
    "view": ("edit",),
    "edit": ("admin",),
}

_BINDINGS: dict[str, tuple[str, ...]] = {  # ClusterRole -> its subjects
    "cluster-admin": ("Group:system:masters",),
    "system:discovery": ("Group:system:authenticated",),
    "system:basic-user": ("Group:system:authenticated",),
    "system:service-account-issuer-discovery": ("Group:system:serviceaccounts",),
    "system:public-info-viewer": ("Group:system:authenticated", "Group:system:unauthenticated"),
    "system:monitoring": ("Group:system:monitoring",),
    "system:node-proxier": ("User:system:kube-proxy",),
    "system:node": ("Group:system:nodes",),
    "system:kubesvc:node": ("Group:system:nodes",),
    "system:node-bootstrapper": ("Group:system:bootstrappers",),
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": ("Group:system:bootstrappers",),
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": ("Group:system:nodes",),
    "system:kubesvc:dns": ("User:system:kubesvc:dns",),
    "system:kubesvc:load-balancer": ("User:system:kubesvc:load-balancer",),
    "system:kubesvc:announcer": ("User:system:kube-proxy",),  # on our nodes the two are one process
    "system:kubesvc:controllers": ("User:system:kubesvc:controllers",),
    CUSTOM_KINDS: ("User:system:kubesvc:controllers",),
}

_LOCAL: dict[str, tuple[str, Rule, tuple[str, ...]]] = {  # Role -> its namespace, its rule, its subjects
    # the endpoints of kube-dns: each server's own, and a silent neighbour's
    "system:kubesvc:dns": (
        "kube-system",
        ("create delete get patch", "discovery.k8s.io", "endpointslices"),
        ("User:system:kubesvc:dns", "Group:system:nodes"),
    ),
    # the sign of life of a node's data plane
    "system:kubesvc:proxy": (
        "kube-node-lease",
        ("create get patch", "coordination.k8s.io", "leases"),
        ("User:system:kube-proxy",),
    ),
    # the password of BGP peers, and no other Secret
    "system:kubesvc:announcer": (
        "kube-system",
        ("get", _CORE, "secrets", "bgp-password"),
        ("User:system:kube-proxy",),
    ),
}


def cluster_roles() -> list[JSON]:
    plain = [_role(name, rules=[_rule(rule) for rule in rules]) for name, rules in ROLES.items()]
    made = [
        _role(name, aggregationRule={"clusterRoleSelectors": [{"matchLabels": {_AGGREGATE + label: "true"}}]})
        for name, label in AGGREGATED.items()
    ]
    return plain + made


def cluster_role_bindings() -> list[JSON]:
    return [
        {"metadata": _metadata(role), "roleRef": _reference("ClusterRole", role), "subjects": _subjects(subjects)}
        for role, subjects in _BINDINGS.items()
    ]


def roles() -> list[JSON]:
    return [
        {"metadata": {**_metadata(name), "namespace": namespace}, "rules": [_rule(rule)]}
        for name, (namespace, rule, _) in _LOCAL.items()
    ]


def role_bindings() -> list[JSON]:
    return [
        {
            "metadata": {**_metadata(name), "namespace": namespace},
            "roleRef": _reference("Role", name),
            "subjects": _subjects(subjects),
        }
        for name, (namespace, _, subjects) in _LOCAL.items()
    ]


def _role(name: str, **content: Any) -> JSON:
    return {"metadata": _metadata(name), **content}


def _metadata(name: str) -> JSON:
    labels = {"kubernetes.io/bootstrapping": "rbac-defaults"}
    labels |= {_AGGREGATE + label: "true" for label in _LABELS.get(name, ())}
    return {"name": name, "labels": labels, "annotations": {AUTOUPDATE: "true"}}


def _rule(rule: Rule) -> JSON:
    verbs, *where = rule
    if len(where) == 1:
        return {"verbs": verbs.split(), "nonResourceURLs": where[0].split()}
    groups, resources, *names = where
    found: JSON = {
        "verbs": verbs.split(),
        "apiGroups": [group.strip("'") for group in groups.split()],
        "resources": resources.split(),
    }
    return found | ({"resourceNames": names[0].split()} if names else {})


def _reference(kind: str, name: str) -> JSON:
    return {"apiGroup": RBAC, "kind": kind, "name": name}


def _subjects(subjects: tuple[str, ...]) -> list[JSON]:
    return [{"apiGroup": RBAC, "kind": s.partition(":")[0], "name": s.partition(":")[2]} for s in subjects]

"""The registry of kinds: what each is called, where it lives, what it can do, and whether anything acts on it.

Adding a kind is one entry here plus, at most, one file in `apiserver/admission`; then scripts/generate-schema and
scripts/generate-protobuf. A kind served in several versions has an entry for each, the preferred one first; the others
are `stored_as` that one, and `apiserver/views` converts.
"""

from __future__ import annotations

import msgspec

from kubesvc.api import (
    apps,
    balancing,
    batch,
    certificates,
    coordination,
    core,
    discovery,
    networking,
    nodes,
    pods,
    policy,
    storage,
)
from kubesvc.api.meta import Object

READ = ("get", "list", "watch")
WRITE = ("create", "update", "patch", "delete", "deletecollection")


class Kind(msgspec.Struct, frozen=True):
    """One resource. `view` is the typed struct rooms decode it into; `fields` its selectable fields beside
    metadata.name and metadata.namespace; `acted_on` is False when it is stored but no room does anything with it.

    `deprecated` is what every request for it is warned with. `put_creates`: a PUT makes it where there is none.
    `answered` is True for a question that is answered on the spot: nothing of it is stored.
    `stored_as` is the (group, plural) of the kind whose objects this one shows in another shape.
    """

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    view: type[Object] = Object
    fields: tuple[str, ...] = ()
    acted_on: bool = True
    verbs: tuple[str, ...] = READ + WRITE
    deprecated: str = ""
    put_creates: bool = False
    stored_as: tuple[str, str] | None = None
    answered: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """The plural with its group, as messages name it: services, deployments.apps."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def root(self) -> str:
        """The path of its group and version: /api/v1, /apis/apps/v1."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of a collection, an object, or a subresource. No namespace: all of them."""
        parts = [self.root]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [p for p in (name, subresource) if p]
        return "/".join(parts)


NAMESPACE = Kind(
    "",
    "v1",
    "Namespace",
    "namespaces",
    "namespace",
    False,
    ("ns",),
    (),
    ("status", "finalize"),
    core.Namespace,
    ("status.phase",),
)
NODE = Kind(
    "", "v1", "Node", "nodes", "node", False, ("no",), (), ("status", "proxy"), nodes.Node, ("spec.unschedulable",)
)
POD = Kind(
    "",
    "v1",
    "Pod",
    "pods",
    "pod",
    True,
    ("po",),
    ("all",),
    ("status", "binding", "ephemeralcontainers", "eviction", "log", "exec", "attach", "portforward", "proxy"),
    pods.Pod,
    (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
        "spec.hostNetwork",
    ),
)
SERVICE = Kind(
    "",
    "v1",
    "Service",
    "services",
    "service",
    True,
    ("svc",),
    ("all",),
    ("status", "proxy"),
    core.Service,
    ("spec.clusterIP", "spec.type"),
    put_creates=True,
)
ENDPOINTS = Kind(
    "",
    "v1",
    "Endpoints",
    "endpoints",
    "endpoints",
    True,
    ("ep",),
    view=core.Endpoints,
    deprecated="v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    put_creates=True,
)
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps", "configmap", True, ("cm",), (), (), core.ConfigMap)
SECRET = Kind("", "v1", "Secret", "secrets", "secret", True, (), (), (), core.Secret, ("type",))
EVENT = Kind(
    "",
    "v1",
    "Event",
    "events",
    "event",
    True,
    ("ev",),
    (),
    (),
    Object,
    (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
    put_creates=True,
)
EVENTS_EVENT = Kind(
    "events.k8s.io",
    "v1",
    "Event",
    "events",
    "event",
    True,
    ("ev",),
    fields=(
        "regarding.kind",
        "regarding.namespace",
        "regarding.name",
        "regarding.uid",
        "regarding.apiVersion",
        "regarding.resourceVersion",
        "regarding.fieldPath",
        "reason",
        "reportingController",
        "type",
    ),
    put_creates=True,
    stored_as=("", "events"),
)
SERVICE_ACCOUNT = Kind(
    "", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount", True, ("sa",), subresources=("token",)
)
DEPLOYMENT = Kind(
    "apps",
    "v1",
    "Deployment",
    "deployments",
    "deployment",
    True,
    ("deploy",),
    ("all",),
    ("status", "scale"),
    apps.Deployment,
)
REPLICA_SET = Kind(
    "apps",
    "v1",
    "ReplicaSet",
    "replicasets",
    "replicaset",
    True,
    ("rs",),
    ("all",),
    ("status", "scale"),
    apps.ReplicaSet,
    ("status.replicas",),
)
ENDPOINT_SLICE = Kind(
    "discovery.k8s.io",
    "v1",
    "EndpointSlice",
    "endpointslices",
    "endpointslice",
    True,
    (),
    (),
    (),
    discovery.EndpointSlice,
)
SERVICE_CIDR = Kind(
    "networking.k8s.io",
    "v1",
    "ServiceCIDR",
    "servicecidrs",
    "servicecidr",
    False,
    (),
    (),
    ("status",),
    networking.ServiceCIDR,
)
IP_ADDRESS = Kind(
    "networking.k8s.io",
    "v1",
    "IPAddress",
    "ipaddresses",
    "ipaddress",
    False,
    ("ip",),
    (),
    (),
    networking.IPAddress,
    ("spec.parentRef.name",),
)
LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases", "lease", True, view=coordination.Lease, put_creates=True)
INGRESS = Kind(
    "networking.k8s.io", "v1", "Ingress", "ingresses", "ingress", True, ("ing",), (), ("status",), acted_on=False
)
STATEFUL_SET = Kind(
    "apps",
    "v1",
    "StatefulSet",
    "statefulsets",
    "statefulset",
    True,
    ("sts",),
    ("all",),
    ("status", "scale"),
    apps.StatefulSet,
)
DAEMON_SET = Kind(
    "apps", "v1", "DaemonSet", "daemonsets", "daemonset", True, ("ds",), ("all",), ("status",), apps.DaemonSet
)
NETWORK_POLICY = Kind(
    "networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", "networkpolicy", True, ("netpol",), acted_on=False
)
JOB = Kind(
    "batch",
    "v1",
    "Job",
    "jobs",
    "job",
    True,
    (),
    ("all",),
    ("status",),
    batch.Job,
    ("status.successful",),
)
REPLICATION_CONTROLLER = Kind(
    "",
    "v1",
    "ReplicationController",
    "replicationcontrollers",
    "replicationcontroller",
    True,
    ("rc",),
    ("all",),
    ("status", "scale"),
    apps.ReplicationController,
    ("status.replicas",),
)
CONTROLLER_REVISION = Kind(
    "apps",
    "v1",
    "ControllerRevision",
    "controllerrevisions",
    "controllerrevision",
    True,
    view=apps.ControllerRevision,
)

# ── the API server's own extension ───────────────────────────────────────────────────────────────────────────────────

CUSTOM_RESOURCE_DEFINITION = Kind(
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    "customresourcedefinition",
    False,
    ("crd", "crds"),
    ("api-extensions",),
    ("status",),
)
MUTATING_WEBHOOK_CONFIGURATION = Kind(
    "admissionregistration.k8s.io",
    "v1",
    "MutatingWebhookConfiguration",
    "mutatingwebhookconfigurations",
    "mutatingwebhookconfiguration",
    False,
    (),
    ("api-extensions",),
)
VALIDATING_WEBHOOK_CONFIGURATION = Kind(
    "admissionregistration.k8s.io",
    "v1",
    "ValidatingWebhookConfiguration",
    "validatingwebhookconfigurations",
    "validatingwebhookconfiguration",
    False,
    (),
    ("api-extensions",),
)

# ── stored, and answered with a warning ──────────────────────────────────────────────────────────────────────────────

CRON_JOB = Kind("batch", "v1", "CronJob", "cronjobs", "cronjob", True, ("cj",), ("all",), ("status",), batch.CronJob)
INGRESS_CLASS = Kind("networking.k8s.io", "v1", "IngressClass", "ingressclasses", "ingressclass", False, acted_on=False)
PERSISTENT_VOLUME = Kind(
    "",
    "v1",
    "PersistentVolume",
    "persistentvolumes",
    "persistentvolume",
    False,
    ("pv",),
    (),
    ("status",),
    storage.PersistentVolume,
)
PERSISTENT_VOLUME_CLAIM = Kind(
    "",
    "v1",
    "PersistentVolumeClaim",
    "persistentvolumeclaims",
    "persistentvolumeclaim",
    True,
    ("pvc",),
    (),
    ("status",),
    storage.PersistentVolumeClaim,
)
STORAGE_CLASS = Kind(
    "storage.k8s.io",
    "v1",
    "StorageClass",
    "storageclasses",
    "storageclass",
    False,
    ("sc",),
    view=storage.StorageClass,
)
POD_DISRUPTION_BUDGET = Kind(
    "policy",
    "v1",
    "PodDisruptionBudget",
    "poddisruptionbudgets",
    "poddisruptionbudget",
    True,
    ("pdb",),
    (),
    ("status",),
    view=policy.PodDisruptionBudget,
)
HORIZONTAL_POD_AUTOSCALER = Kind(
    "autoscaling",
    "v2",
    "HorizontalPodAutoscaler",
    "horizontalpodautoscalers",
    "horizontalpodautoscaler",
    True,
    ("hpa",),
    ("all",),
    ("status",),
    acted_on=False,
)
HORIZONTAL_POD_AUTOSCALER_V1 = Kind(
    "autoscaling",
    "v1",
    "HorizontalPodAutoscaler",
    "horizontalpodautoscalers",
    "horizontalpodautoscaler",
    True,
    ("hpa",),
    ("all",),
    ("status",),
    acted_on=False,
    stored_as=("autoscaling", "horizontalpodautoscalers"),
)
RESOURCE_QUOTA = Kind(
    "", "v1", "ResourceQuota", "resourcequotas", "resourcequota", True, ("quota",), (), ("status",), acted_on=False
)
LIMIT_RANGE = Kind(
    "", "v1", "LimitRange", "limitranges", "limitrange", True, ("limits",), acted_on=False, put_creates=True
)
PRIORITY_CLASS = Kind(
    "scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", "priorityclass", False, ("pc",), acted_on=False
)

# ── our own: what configures the load balancer ───────────────────────────────────────────────────────────────────────

GROUP = "kubesvc.dev"


def _balancing(view: type[Object]) -> Kind:
    name = view.__name__
    plural = f"{name.lower()}s"
    return Kind(GROUP, "v1beta1", name, plural, name.lower(), False, subresources=("status",), view=view)


IP_ADDRESS_POOL = _balancing(balancing.IPAddressPool)
L2_ADVERTISEMENT = _balancing(balancing.L2Advertisement)
BGP_ADVERTISEMENT = _balancing(balancing.BGPAdvertisement)
BGP_PEER = _balancing(balancing.BGPPeer)

# ── who may do what ──────────────────────────────────────────────────────────────────────────────────────────────────

RBAC = "rbac.authorization.k8s.io"
ROLE = Kind(RBAC, "v1", "Role", "roles", "role", True)
CLUSTER_ROLE = Kind(RBAC, "v1", "ClusterRole", "clusterroles", "clusterrole", False)
ROLE_BINDING = Kind(RBAC, "v1", "RoleBinding", "rolebindings", "rolebinding", True)
CLUSTER_ROLE_BINDING = Kind(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", "clusterrolebinding", False)

CERTIFICATES = "certificates.k8s.io"
CERTIFICATE_SIGNING_REQUEST = Kind(
    CERTIFICATES,
    "v1",
    "CertificateSigningRequest",
    "certificatesigningrequests",
    "certificatesigningrequest",
    False,
    ("csr",),
    (),
    ("status", "approval"),
    certificates.CertificateSigningRequest,
    ("spec.signerName",),
)

# ── questions, answered on the spot ──────────────────────────────────────────────────────────────────────────────────


def _question(group: str, kind: str, *, namespaced: bool = False) -> Kind:
    plural = f"{kind.lower()}s"
    return Kind(group, "v1", kind, plural, kind.lower(), namespaced, verbs=("create",), answered=True)


AUTHORIZATION, AUTHENTICATION = "authorization.k8s.io", "authentication.k8s.io"
SELF_SUBJECT_REVIEW = _question(AUTHENTICATION, "SelfSubjectReview")
TOKEN_REVIEW = _question(AUTHENTICATION, "TokenReview")
SELF_SUBJECT_ACCESS_REVIEW = _question(AUTHORIZATION, "SelfSubjectAccessReview")
SELF_SUBJECT_RULES_REVIEW = _question(AUTHORIZATION, "SelfSubjectRulesReview")
SUBJECT_ACCESS_REVIEW = _question(AUTHORIZATION, "SubjectAccessReview")
LOCAL_SUBJECT_ACCESS_REVIEW = _question(AUTHORIZATION, "LocalSubjectAccessReview", namespaced=True)

# (group, version, plural) -> kind: every entry above, in their order
KINDS: dict[tuple[str, str, str], Kind] = {
    (k.group, k.version, k.plural): k for k in list(globals().values()) if isinstance(k, Kind)
}


def stored() -> list[Kind]:
    """The kinds with objects of their own: not those that only show another's in another shape, nor questions."""
    return [kind for kind in KINDS.values() if kind.stored_as is None and not kind.answered]


def served(group: str, version: str, plural: str) -> Kind | None:
    """The kind served at GROUP, VERSION and PLURAL, or None."""
    return KINDS.get((group, version, plural))


def find(group: str, plural: str) -> Kind | None:
    """The kind served at GROUP and PLURAL, in its preferred version, or None."""
    return next((k for k in KINDS.values() if (k.group, k.plural) == (group, plural)), None)


def by_kind(api_version: str, kind: str) -> Kind | None:
    """The kind an object with this apiVersion and kind is, or None."""
    return next((k for k in KINDS.values() if k.kind == kind and k.api_version == api_version), None)

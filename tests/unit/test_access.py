"""Who may do what: rules, roles and bindings, the roles every cluster has, nodes, escalation, and asking."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api import registry
from kubesvc.api.errors import ApiError, Forbidden, Invalid
from kubesvc.api.meta import JSON
from kubesvc.api.registry import (
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    CONFIG_MAP,
    LEASE,
    NODE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    RBAC,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SELF_SUBJECT_ACCESS_REVIEW,
    SELF_SUBJECT_REVIEW,
    SERVICE,
    SUBJECT_ACCESS_REVIEW,
    Kind,
)
from kubesvc.apiserver.access import roles
from kubesvc.apiserver.access.attributes import Attributes
from kubesvc.apiserver.access.grants import Grants
from kubesvc.apiserver.access.rbac import Rbac
from kubesvc.apiserver.server import ApiServer
from kubesvc.client.session import Session
from kubesvc.client.transport import Request, Response, User
from support.apiserver import ADMIN, Open


def rule(verbs: str, resources: str = "", group: str = "", **more: Any) -> JSON:
    found: JSON = {"verbs": verbs.split()}
    return found | ({"apiGroups": [group], "resources": resources.split()} if resources else {}) | more


def role(kind: Kind, name: str, *rules: JSON, **metadata: Any) -> JSON:
    place = {"namespace": "default"} if kind.namespaced else {}
    return {"metadata": {"name": name, **place, **metadata}, "rules": list(rules)}


def binding(kind: Kind, name: str, to: str, *subjects: str, namespace: str = "default") -> JSON:
    """`to` is KIND/NAME, each subject KIND:NAME."""
    of_kind, _, called = to.partition("/")
    place = {"namespace": namespace} if kind.namespaced else {}
    who = [{"kind": s.partition(":")[0], "name": s.partition(":")[2]} for s in subjects]
    return {"metadata": {"name": name, **place}, "roleRef": {"kind": of_kind, "name": called}, "subjects": who}


async def refused(work: Any) -> str:
    with pytest.raises(Forbidden) as error:
        await work
    return str(error.value)


# ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────────────

RULES = [
    pytest.param(rule("get", "pods"), Attributes("get", "", "pods", "a", "x"), True, id="what it says"),
    pytest.param(rule("get", "pods"), Attributes("list", "", "pods"), False, id="not another verb"),
    pytest.param(rule("get", "pods"), Attributes("get", "apps", "pods"), False, id="nor another group"),
    pytest.param(rule("get", "pods"), Attributes("get", "", "pods/log"), False, id="nor a subresource"),
    pytest.param(rule("get", "pods/log"), Attributes("get", "", "pods/log"), True, id="a subresource by name"),
    pytest.param(rule("get", "pods/log"), Attributes("get", "", "pods"), False, id="which isn't the resource"),
    pytest.param(rule("get", "*/log"), Attributes("get", "", "pods/log"), True, id="one subresource of all"),
    pytest.param(rule("get", "*/log"), Attributes("get", "", "pods/exec"), False, id="and only that"),
    pytest.param(rule("*", "*", "*"), Attributes("x", "y", "z/w", "", "n"), True, id="everything"),
    pytest.param(rule("get", "pods", resourceNames=["a"]), Attributes("get", "", "pods", "", "a"), True, id="one name"),
    pytest.param(rule("get", "pods", resourceNames=["a"]), Attributes("get", "", "pods", "", "b"), False,
                 id="not another"),
    pytest.param(rule("list", "pods", resourceNames=["a"]), Attributes("list", "", "pods"), False, id="nor all"),
    pytest.param(rule("get", nonResourceURLs=["/metrics"]), Attributes("get", path="/metrics"), True, id="a path"),
    pytest.param(rule("get", nonResourceURLs=["/metrics"]), Attributes("get", path="/metrics/x"), False, id="exactly"),
    pytest.param(rule("get", nonResourceURLs=["/a/*"]), Attributes("get", path="/a/b/c"), True, id="all below"),
    pytest.param(rule("*", "*", "*"), Attributes("get", path="/metrics"), False, id="resources are no paths"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "wanted", "allowed"), RULES)
def test_a_rule_allows_what_it_says(given: JSON, wanted: Attributes, allowed: bool) -> None:
    assert Grants([given]).allow(wanted) is allowed


# ── upstream's roles: (identity, verb, kind) ─────────────────────────────────────────────────────────────────────────

READS, WRITES = ("get", "list", "watch"), ("create", "update", "patch", "delete", "deletecollection")
_SETS = {"-": (), "R": READS, "W": WRITES, "RW": READS + WRITES, "C": ("create",)}

# resource, its group, what of it `view`, `edit` and `admin` may when bound in a namespace
TABLE = """
pods                        -            R  RW RW
pods/log                    -            R  R  R
pods/status                 -            R  R  R
pods/exec                   -            -  RW RW
pods/portforward            -            -  RW RW
pods/eviction               -            -  C  C
pods/binding                -            -  -  -
secrets                     -            -  RW RW
configmaps                  -            R  RW RW
services                    -            R  RW RW
services/status             -            R  R  R
services/proxy              -            -  RW RW
endpoints                   -            R  R  R
serviceaccounts             -            R  RW RW
serviceaccounts/token       -            -  C  C
persistentvolumeclaims      -            R  RW RW
replicationcontrollers      -            R  RW RW
events                      -            R  RW RW
resourcequotas              -            R  R  R
limitranges                 -            R  R  R
namespaces                  -            R  R  R
namespaces/finalize         -            -  -  -
nodes                       -            -  -  -
nodes/proxy                 -            -  -  -
persistentvolumes           -            -  -  -
deployments                 apps         R  RW RW
deployments/scale           apps         R  RW RW
deployments/status          apps         R  R  R
replicasets                 apps         R  RW RW
statefulsets                apps         R  RW RW
daemonsets                  apps         R  RW RW
controllerrevisions         apps         R  R  R
jobs                        batch        R  RW RW
cronjobs                    batch        R  RW RW
horizontalpodautoscalers    autoscaling  R  RW RW
poddisruptionbudgets        policy       R  RW RW
endpointslices              discovery.k8s.io     R  R  R
ingresses                   networking.k8s.io    R  RW RW
networkpolicies             networking.k8s.io    R  RW RW
servicecidrs                networking.k8s.io    -  -  -
ipaddresses                 networking.k8s.io    -  -  -
leases                      coordination.k8s.io  -  RW RW
roles                       rbac.authorization.k8s.io  -  -  RW
rolebindings                rbac.authorization.k8s.io  -  -  RW
clusterroles                rbac.authorization.k8s.io  -  -  -
clusterrolebindings         rbac.authorization.k8s.io  -  -  -
localsubjectaccessreviews   authorization.k8s.io       -  -  C
subjectaccessreviews        authorization.k8s.io       -  -  -
storageclasses              storage.k8s.io       -  -  -
"""
PAIRS = [
    (identity, verb, "" if group == "-" else group, resource, verb in _SETS[allowed])
    for resource, group, *columns in (line.split() for line in TABLE.strip().splitlines())
    for identity, allowed in zip(("view", "edit", "admin"), columns, strict=True)
    for verb in READS + WRITES
]


def bootstrapped() -> Rbac:
    """The roles every cluster has, and `view`, `edit` and `admin` bound to a group of that name in `shop`."""
    rbac = Rbac()
    for kind, trees in (
        (CLUSTER_ROLE, roles.cluster_roles()),
        (CLUSTER_ROLE_BINDING, roles.cluster_role_bindings()),
        (ROLE, roles.roles()),
        (ROLE_BINDING, roles.role_bindings()),
    ):
        for tree in trees:
            rbac.put(kind, tree["metadata"].get("namespace", ""), tree["metadata"]["name"], tree)
    for name in ("view", "edit", "admin"):
        tree = binding(ROLE_BINDING, name, f"ClusterRole/{name}")
        tree["subjects"] = [{"apiGroup": RBAC, "kind": "Group", "name": name}]
        rbac.put(ROLE_BINDING, "shop", name, tree)
    return rbac


def test_upstreams_roles_allow_what_upstreams_do_and_no_more() -> None:
    """Each of more than a thousand pairs, in the namespace they are bound in; and nothing of it in another."""
    rbac, wrong = bootstrapped(), []
    assert len(PAIRS) >= 1000
    for identity, verb, group, resource, allowed in PAIRS:
        user = User("someone", (identity,))
        if rbac.allow(user, Attributes(verb, group, resource, "shop", "x")) is not allowed:
            wrong.append((identity, verb, resource, allowed))
        if rbac.allow(user, Attributes(verb, group, resource, "other", "x")):
            wrong.append((identity, verb, resource, "elsewhere"))
    assert wrong == []


PROXY, DNS = User("system:kube-proxy", ("system:node-proxier",)), User("system:kubesvc:dns")
AGENT, BALANCER = User("system:node:n1", ("system:nodes",)), User("system:kubesvc:load-balancer")
CONTROLLERS, NOBODY = User("system:kubesvc:controllers"), User("nobody")
EVERYBODY = (PROXY, DNS, AGENT, BALANCER, CONTROLLERS, NOBODY)

# verb, group, resource, namespace; who of our own rooms may
ROOMS = [
    ("list", "", "services", "", {PROXY, DNS, AGENT, BALANCER, CONTROLLERS}),
    ("watch", "discovery.k8s.io", "endpointslices", "", {PROXY, DNS, AGENT, CONTROLLERS}),
    ("patch", "discovery.k8s.io", "endpointslices", "kube-system", {DNS, AGENT, CONTROLLERS}),
    ("patch", "discovery.k8s.io", "endpointslices", "default", {CONTROLLERS}),
    ("create", "discovery.k8s.io", "endpointslices", "default", {CONTROLLERS}),
    ("patch", "", "services/status", "default", {BALANCER}),
    ("patch", "", "services", "default", {BALANCER, CONTROLLERS}),
    ("delete", "", "services", "default", {CONTROLLERS}),
    ("list", "", "pods", "", {DNS, AGENT, CONTROLLERS}),
    ("create", "", "pods", "default", {CONTROLLERS}),
    ("create", "", "pods/binding", "default", {CONTROLLERS}),
    ("patch", "", "pods/status", "default", {AGENT, CONTROLLERS}),
    ("patch", "policy", "poddisruptionbudgets/status", "default", {CONTROLLERS}),
    ("create", "batch", "jobs", "default", {CONTROLLERS}),
    ("patch", "batch", "cronjobs/status", "default", {CONTROLLERS}),
    ("get", "", "secrets", "default", {AGENT, CONTROLLERS}),
    ("list", "", "secrets", "", {CONTROLLERS, AGENT}),
    ("get", "", "pods/exec", "default", set()),
    ("create", "", "pods/exec", "default", set()),
    ("get", "", "nodes/proxy", "", set()),
    ("create", "", "serviceaccounts/token", "default", {AGENT}),
    ("impersonate", "", "users", "", set()),
    ("create", RBAC, "clusterrolebindings", "", set()),
    ("update", RBAC, "clusterroles", "", set()),
    ("patch", "coordination.k8s.io", "leases", "kube-node-lease", {PROXY, AGENT, CONTROLLERS}),
    ("update", "", "namespaces/finalize", "a", {CONTROLLERS}),
    ("create", "", "events", "default", {PROXY, DNS, AGENT, BALANCER, CONTROLLERS}),
]


def _told(value: str | set[User]) -> str:
    return value if isinstance(value, str) else ",".join(sorted(user.name for user in value)) or "nobody"


@pytest.mark.parametrize(("verb", "group", "resource", "namespace", "who"), ROOMS, ids=_told)
def test_each_room_may_what_it_uses(verb: str, group: str, resource: str, namespace: str, who: set[User]) -> None:
    rbac = bootstrapped()
    wanted = Attributes(verb, group, resource, namespace, "x")
    assert {user.name for user in EVERYBODY if rbac.allow(user, wanted)} == {user.name for user in who}


# ── roles and bindings over the API ──────────────────────────────────────────────────────────────────────────────────


async def test_a_stranger_with_a_certificate_may_nothing_but_look_around(of: Open) -> None:
    """In upstream's words for an object, a collection, the whole cluster and a path."""
    alice = of("alice")
    assert (await alice.raw("GET", "/apis")).status == 200
    assert (await alice.raw("GET", "/openapi/v2")).status == 200
    says = 'is forbidden: User "alice" cannot'
    assert await refused(alice.get(SERVICE, "default", "web")) == (
        f'services "web" {says} get resource "services" in API group "" in the namespace "default"'
    )
    assert await refused(alice.raw("GET", "/apis/apps/v1/deployments")) == (
        f'deployments.apps {says} list resource "deployments" in API group "apps" at the cluster scope'
    )
    assert await refused(alice.raw("POST", "/api/v1/namespaces/a/pods/p/exec")) == (
        f'pods "p" {says} create resource "pods/exec" in API group "" in the namespace "a"'
    )
    assert await refused(alice.raw("GET", "/metrics")) == 'forbidden: User "alice" cannot get path "/metrics"'


async def test_a_binding_counts_at_once_and_until_it_is_gone(of: Open, admin: Session) -> None:
    alice = of("alice", "devs")
    await admin.create(ROLE, role(ROLE, "reader", rule("get list", "services")))
    await refused(alice.get(SERVICE, "default", "kubernetes"))
    await admin.create(ROLE_BINDING, binding(ROLE_BINDING, "readers", "Role/reader", "Group:devs"))
    assert (await alice.get(SERVICE, "default", "kubernetes"))["kind"] == "Service"
    await refused(alice.raw("GET", SERVICE.path()))
    await admin.patch(ROLE, "default", "reader", {"rules": [rule("list", "services")]})
    await refused(alice.get(SERVICE, "default", "kubernetes"))
    await admin.patch(ROLE, "default", "reader", {"rules": [rule("get", "services")]})
    await alice.get(SERVICE, "default", "kubernetes")
    await admin.delete(ROLE_BINDING, "default", "readers")
    await refused(alice.get(SERVICE, "default", "kubernetes"))


async def test_who_may_read_one_object_may_watch_it_by_name(of: Open, admin: Session) -> None:
    await admin.create(ROLE, role(ROLE, "one", rule("get list watch", "configmaps", resourceNames=["mine"])))
    await admin.create(ROLE_BINDING, binding(ROLE_BINDING, "one", "Role/one", "User:alice"))
    alice = of("alice")
    assert (await alice.list(CONFIG_MAP, CONFIG_MAP.view, namespace="default", fields="metadata.name=mine")).items == []
    for fields in ("metadata.name=other", ""):
        await refused(alice.list(CONFIG_MAP, CONFIG_MAP.view, namespace="default", fields=fields))


async def test_an_aggregated_role_has_the_rules_of_those_it_selects(of: Open, admin: Session) -> None:
    """And shows them, as they come and go."""
    label = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    extra = rule("get", "widgets", "example.com")
    await admin.create(CLUSTER_ROLE, role(CLUSTER_ROLE, "widgets", extra, labels=label))
    for name in ("view", "edit", "admin"):
        assert extra in (await admin.get(CLUSTER_ROLE, "", name))["rules"]
    await admin.delete(CLUSTER_ROLE, "", "widgets")
    assert extra not in (await admin.get(CLUSTER_ROLE, "", "admin"))["rules"]


async def test_a_service_account_is_a_user_like_any_other(of: Open, admin: Session) -> None:
    tree = binding(CLUSTER_ROLE_BINDING, "robot", "ClusterRole/view")
    tree["subjects"] = [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}]
    await admin.create(CLUSTER_ROLE_BINDING, tree)
    assert (await of("system:serviceaccount:default:robot").raw("GET", POD.path())).status == 200
    await refused(of("system:serviceaccount:other:robot").raw("GET", POD.path()))


async def test_what_creates_needs_create_whatever_its_verb(of: Open, admin: Session) -> None:
    """An apply, and a PUT where one creates."""
    await admin.create(ROLE, role(ROLE, "changer", rule("get patch update", "services")))
    await admin.create(ROLE_BINDING, binding(ROLE_BINDING, "changer", "Role/changer", "User:alice"))
    alice, path = of("alice"), SERVICE.path("default", "web")
    body = b'{"metadata":{"name":"web"},"spec":{"ports":[{"port":80}]}}'
    said = await refused(alice.raw("PATCH", path, query={"fieldManager": "m"}, body=body,
                                   content_type="application/apply-patch+yaml"))  # fmt: skip
    assert 'cannot create resource "services"' in said
    assert 'cannot create resource "services"' in await refused(alice.raw("PUT", path, body=body))


INVALID = [
    (ROLE, role(ROLE, "x", {"apiGroups": [""], "resources": ["pods"]}), "rules[0].verbs: Required value"),
    (ROLE, role(ROLE, "x", rule("get")), "rules[0].resources: Required value"),
    (ROLE, role(ROLE, "x", rule("get", nonResourceURLs=["/x"])), "namespaced rules cannot apply to non-resource URLs"),
    (ROLE_BINDING, binding(ROLE_BINDING, "x", "Rule/x"), "roleRef.kind: Unsupported value"),
    (ROLE_BINDING, binding(ROLE_BINDING, "x", "Role/x", "Robot:r"), "subjects[0].kind: Unsupported value"),
    (CLUSTER_ROLE_BINDING, binding(CLUSTER_ROLE_BINDING, "x", "ClusterRole/x", "ServiceAccount:r"),
     "subjects[0].namespace: Required value"),
    (CLUSTER_ROLE_BINDING, binding(CLUSTER_ROLE_BINDING, "x", "Role/x"), "roleRef.kind: Unsupported value"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "tree", "said"), INVALID)
async def test_a_rule_or_binding_that_means_nothing_is_refused(
    admin: Session, kind: Kind, tree: JSON, said: str
) -> None:
    with pytest.raises(Invalid) as error:
        await admin.create(kind, tree)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({}, "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required"),
        ({"clusterRoleSelectors": [{"matchExpressions": [{"operator": "In", "values": ["b"]}]}]},
         "aggregationRule.clusterRoleSelectors[0].matchExpressions[0].key: Invalid value"),
        ({"clusterRoleSelectors": [{"matchExpressions": [{"key": "a"}]}]}, "not a valid selector operator"),
    ],
)  # fmt: skip
async def test_a_role_that_aggregates_says_what_and_spoils_no_other(admin: Session, rule: JSON, text: str) -> None:
    with pytest.raises(Invalid) as error:
        await admin.create(CLUSTER_ROLE, role(CLUSTER_ROLE, "sum") | {"aggregationRule": rule})
    assert text in str(error.value)
    await admin.create(CLUSTER_ROLE, role(CLUSTER_ROLE, "plain"))


async def test_a_binding_keeps_its_role(admin: Session) -> None:
    await admin.create(ROLE_BINDING, binding(ROLE_BINDING, "b", "Role/one"))
    with pytest.raises(Invalid, match="cannot change roleRef"):
        await admin.patch(ROLE_BINDING, "default", "b", {"roleRef": {"name": "two"}})


# ── escalation, impersonation ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def keeper(of: Open, admin: Session) -> Session:
    """Of a namespace: may write roles and bindings there, and read Services, by two roles."""
    mine = rule("*", "roles rolebindings", RBAC)
    await admin.create(ROLE, role(ROLE, "keeper", mine))
    await admin.create(ROLE, role(ROLE, "reader", rule("get list", "services")))
    for name in ("keeper", "reader"):
        tree = binding(ROLE_BINDING, name, f"Role/{name}", "User:keeper")
        await admin.create(ROLE_BINDING, tree)
    await admin.patch(
        ROLE, "default", "keeper", {"rules": [rule("get create update patch", "roles rolebindings", RBAC)]}
    )
    return of("keeper")


async def test_nobody_gives_what_they_do_not_have(keeper: Session) -> None:
    said = await refused(keeper.create(ROLE, role(ROLE, "more", rule("get delete", "services"))))
    assert said == (
        'roles.rbac.authorization.k8s.io "more" is forbidden: user "keeper" (groups=["system:authenticated"]) is '
        "attempting to grant RBAC permissions not currently held:\n"
        '{APIGroups:[""], Resources:["services"], Verbs:["get", "delete"]}'
    )
    await keeper.create(ROLE, role(ROLE, "less", rule("get", "services")))
    await refused(keeper.patch(ROLE, "default", "less", {"rules": [rule("get", "secrets")]}))
    await keeper.patch(ROLE, "default", "less", {"metadata": {"labels": {"a": "b"}}})


async def test_nobody_binds_what_they_do_not_have(keeper: Session, admin: Session) -> None:
    await keeper.create(ROLE_BINDING, binding(ROLE_BINDING, "friends", "Role/reader", "User:friend"))
    for role_ref in ("ClusterRole/admin", "ClusterRole/nothing-yet"):
        said = await refused(keeper.create(ROLE_BINDING, binding(ROLE_BINDING, "mine", role_ref, "User:keeper")))
        assert "not currently held" in said
    bind = rule("bind", "clusterroles", RBAC, resourceNames=["view"])
    await admin.create(CLUSTER_ROLE, role(CLUSTER_ROLE, "binder", bind))
    await admin.create(CLUSTER_ROLE_BINDING, binding(CLUSTER_ROLE_BINDING, "b", "ClusterRole/binder", "User:keeper"))
    await keeper.create(ROLE_BINDING, binding(ROLE_BINDING, "viewers", "ClusterRole/view", "User:friend"))


async def test_only_who_may_acts_as_another(server: ApiServer) -> None:
    async def send(sender: User, **headers: str) -> int:
        named = {f"impersonate-{name}": value for name, value in headers.items()}
        answer = await server.handler(Request("GET", NODE.path(), {}, named, user=sender))
        return answer.status

    assert await send(ADMIN) == 200
    assert await send(ADMIN, user="alice") == 403
    assert await send(ADMIN, user="alice", group="a, system:masters") == 200
    assert await send(User("alice"), user="admin", group="system:masters") == 403
    assert await send(ADMIN, group="system:masters") == 400


async def test_whoever_acts_as_nobody_may_what_nobody_may(server: ApiServer) -> None:
    async def send(path: str, **headers: str) -> Response:
        named = {f"impersonate-{name}": value for name, value in headers.items()}
        return await server.handler(Request("GET", path, {}, named, user=ADMIN))

    assert (await send("/api", user="alice")).status == 200
    assert (await send("/api", user="system:anonymous")).status == 403
    assert (await send("/api", user="alice", group="system:unauthenticated")).status == 403
    assert (await send("/version", user="system:anonymous")).status == 200


# ── nodes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def pod(name: str, node: str, **spec: Any) -> JSON:
    containers = [{"name": "c", "image": "host"}]
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node, "containers": containers, **spec},
    }


async def test_a_node_reads_the_volumes_of_its_pods_claims(of: Open, admin: Session) -> None:
    one = of("system:node:n1", "system:nodes")
    for name, claim in (("pv1", "mine"), ("pv2", "theirs"), ("pv3", "")):
        spec: JSON = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}
        if claim:
            spec["claimRef"] = {"namespace": "default", "name": claim}
        await admin.create(PERSISTENT_VOLUME, {"metadata": {"name": name}, "spec": spec})
    for name, node, claim in (("p1", "n1", "mine"), ("p2", "n2", "theirs")):
        volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]
        await admin.create(POD, pod(name, node, volumes=volumes))
    assert (await one.get(PERSISTENT_VOLUME, "", "pv1"))["kind"] == "PersistentVolume"
    for name in ("pv2", "pv3", "pv4"):
        said = await refused(one.get(PERSISTENT_VOLUME, "", name))
        assert "no relationship found between node 'n1' and this object" in said


async def test_a_node_reads_the_claims_of_its_pods_ephemeral_volumes(of: Open, admin: Session) -> None:
    """By the name that such a claim has; of another node's pod it reads none."""
    one, claim = of("system:node:n1", "system:nodes"), {"accessModes": ["ReadWriteOnce"]}
    claim |= {"resources": {"requests": {"storage": "1Gi"}}}
    volumes = [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": claim}}}]
    for name, node in (("p1", "n1"), ("p2", "n2")):
        await admin.create(POD, pod(name, node, volumes=volumes))
        meta = {"name": f"{name}-v", "namespace": "default"}
        await admin.create(PERSISTENT_VOLUME_CLAIM, {"metadata": meta, "spec": claim})
    assert (await one.get(PERSISTENT_VOLUME_CLAIM, "default", "p1-v"))["metadata"]["name"] == "p1-v"
    said = await refused(one.get(PERSISTENT_VOLUME_CLAIM, "default", "p2-v"))
    assert "no relationship found between node 'n1' and this object" in said


async def test_a_node_gives_itself_no_restricted_labels_and_no_taints(of: Open, admin: Session) -> None:
    """What others rely on to keep pods from it, or to send them there. In upstream's words."""
    one, restricted = of("system:node:n1", "system:nodes"), "node-restriction.kubernetes.io/trusted"
    said = await refused(one.create(NODE, {"metadata": {"name": "n1", "labels": {restricted: "yes"}}}))
    assert f'node "n1" is not allowed to modify labels: {restricted}' in said
    await one.create(NODE, {"metadata": {"name": "n1", "labels": {"disk": "ssd"}}})
    taints = [{"key": "a", "effect": "NoSchedule"}]
    await admin.patch(NODE, "", "n1", {"metadata": {"labels": {f"x.{restricted}": "a"}}, "spec": {"taints": taints}})
    assert "modify labels" in await refused(
        one.patch(NODE, "", "n1", {"metadata": {"labels": {f"x.{restricted}": None}}})
    )
    assert "modify taints" in await refused(one.patch(NODE, "", "n1", {"spec": {"taints": []}}))
    await one.patch(NODE, "", "n1", {"metadata": {"labels": {"disk": "none"}}})


async def test_a_nodes_own_name_is_read_in_every_form(of: Open, server: ApiServer) -> None:
    """An agent written in Go sends protobuf, which says of a create alone what it is of."""
    user = User("system:node:n1", ("system:nodes",))
    for name, status in (("n2", 403), ("n1", 201)):
        metadata = bytes((10, len(name))) + name.encode()
        raw = bytes((10, len(metadata))) + metadata
        unknown = b"\n\n\n\x02v1\x12\x04Node" + bytes((18, len(raw))) + raw
        headers = {"content-type": "application/vnd.kubernetes.protobuf"}
        answer = await server.handler(Request("POST", NODE.path(), {}, headers, b"k8s\0" + unknown, user))
        assert answer.status == status, answer.body


async def test_a_node_reads_what_its_pods_need_and_writes_what_is_its_own(of: Open, admin: Session) -> None:
    one = of("system:node:n1", "system:nodes")
    for name in ("mine", "theirs"):
        await admin.create(SECRET, {"metadata": {"name": name, "namespace": "default"}})
    volumes = [{"name": "v", "secret": {"secretName": "mine"}}]
    await admin.create(POD, pod("p1", "n1", volumes=volumes))
    await admin.create(POD, pod("p2", "n2", volumes=[{"name": "v", "secret": {"secretName": "theirs"}}]))
    assert (await one.get(SECRET, "default", "mine"))["kind"] == "Secret"
    said = await refused(one.get(SECRET, "default", "theirs"))
    assert "no relationship found between node 'n1' and this object" in said
    await refused(one.raw("GET", SECRET.path("default")))
    await one.create(NODE, {"metadata": {"name": "n1"}})
    await admin.create(NODE, {"metadata": {"name": "n2"}})
    assert 'node "n1" is not allowed to modify node "n3"' in await refused(
        one.create(NODE, {"metadata": {"name": "n3"}})
    )
    status = {"status": {"phase": "Running"}}
    await one.patch(POD, "default", "p1", status, subresource="status")
    await refused(one.patch(POD, "default", "p2", status, subresource="status"))
    await refused(one.patch(NODE, "", "n2", status, subresource="status"))
    await refused(one.delete(POD, "default", "p2"))
    await refused(one.delete(NODE, "", "n1"))
    lease = {"metadata": {"name": "n2", "namespace": "kube-node-lease"}, "spec": {}}
    await refused(one.create(LEASE, lease))
    lease["metadata"]["name"] = "n1"
    await one.create(LEASE, lease)
    await refused(one.raw("GET", POD.path()))
    answer = await one.raw("GET", POD.path(), query={"fieldSelector": "spec.nodeName=n1"})
    assert b"p1" in answer.body
    assert b"p2" not in answer.body
    await refused(of("system:node:n1").get(NODE, "", "n1"))  # the name alone makes no node


# ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_reviews_say_what_would_be(of: Open, admin: Session) -> None:
    wanted = {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}

    async def ask(session: Session, kind: Kind, **spec: Any) -> JSON:
        found: JSON = (await session.create(kind, {"metadata": {}, "spec": spec}))["status"]
        return found

    assert await ask(of("alice"), SELF_SUBJECT_ACCESS_REVIEW, **wanted) == {"allowed": False}
    assert await ask(admin, SELF_SUBJECT_ACCESS_REVIEW, **wanted) == {"allowed": True}
    assert await ask(admin, SUBJECT_ACCESS_REVIEW, user="alice", **wanted) == {"allowed": False}
    assert await ask(admin, SUBJECT_ACCESS_REVIEW, user="a", groups=["system:masters"], **wanted) == {"allowed": True}
    path = {"nonResourceAttributes": {"verb": "get", "path": "/apis"}}
    assert await ask(admin, SUBJECT_ACCESS_REVIEW, user="alice", groups=["system:authenticated"], **path) == {
        "allowed": True
    }
    await refused(of("alice").create(SUBJECT_ACCESS_REVIEW, {"metadata": {}, "spec": {"user": "admin", **wanted}}))
    for spec in ({"user": "alice"}, wanted, {"user": "alice", **wanted, **path}):
        with pytest.raises(ApiError) as error:
            await admin.create(SUBJECT_ACCESS_REVIEW, {"metadata": {}, "spec": spec})
        assert error.value.code == 422
    who = await of("alice", "devs").create(SELF_SUBJECT_REVIEW, {"metadata": {}})
    assert who["status"]["userInfo"] == {"username": "alice", "groups": ["devs", "system:authenticated"]}


async def test_a_start_mends_its_roles_and_leaves_those_taken_over(admin: Session) -> None:
    """What was taken from a role of ours comes back with the next start, and what was added stays."""
    from kubesvc.apiserver import bootstrap
    from support.apiserver import config

    assert registry.find(RBAC, "roles") is ROLE
    mine = rule("get", "widgets", "example.com")
    await admin.patch(CLUSTER_ROLE, "", "system:basic-user", {"rules": [mine]})
    kept = {"metadata": {"annotations": {roles.AUTOUPDATE: "false"}}, "rules": []}
    await admin.patch(CLUSTER_ROLE, "", "system:monitoring", kept)
    handler = admin._transport._handler  # type: ignore[attr-defined]
    await bootstrap.run(handler, config())
    assert len((await admin.get(CLUSTER_ROLE, "", "system:basic-user"))["rules"]) == 3
    assert not (await admin.get(CLUSTER_ROLE, "", "system:monitoring")).get("rules")

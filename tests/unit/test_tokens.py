"""ServiceAccounts and their tokens: what a request for one gives, what pods and namespaces get, who may ask."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from kubesvc.api import registry
from kubesvc.api.errors import ApiError, BadRequest, Conflict, Forbidden, Invalid, NotFound
from kubesvc.api.meta import JSON, parse_time
from kubesvc.api.registry import NAMESPACE, NODE, POD, SECRET, SERVICE_ACCOUNT
from kubesvc.apiserver.admission import accounts
from kubesvc.apiserver.server import ApiServer
from kubesvc.client.session import Session
from kubesvc.client.transport import LocalTransport, Request, User
from support.apiserver import ADMIN

ISSUER = "https://kubernetes.default.svc.cluster.local"
NODE1 = User("system:node:n1", ("system:nodes",))
As = Callable[[User], Session]


@pytest.fixture
def of(server: ApiServer) -> As:
    return lambda user: Session(LocalTransport(server.handler, user))


@pytest.fixture
def admin(of: As) -> Session:
    return of(ADMIN)


async def ask(session: Session, account: str = "default", **spec: Any) -> JSON:
    """The answer to a TokenRequest with this spec."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    path = SERVICE_ACCOUNT.path("default", account, "token")
    found: JSON = json.loads((await session.raw("POST", path, body=json.dumps(body).encode())).body)
    return found


async def review(session: Session, token: str, *audiences: str) -> JSON:
    body = {"spec": {"token": token, **({"audiences": list(audiences)} if audiences else {})}}
    found = await session.raw("POST", registry.TOKEN_REVIEW.path(), body=json.dumps(body).encode())
    status: JSON = json.loads(found.body)["status"]
    return status


def claims(token: str) -> JSON:
    part = token.split(".")[1]
    found: JSON = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def pod(name: str, **spec: Any) -> JSON:
    container = {"name": "c", "image": "host", **spec.pop("container", {})}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"containers": [container], **spec}}


def reference(kind: str, tree: JSON, **more: str) -> JSON:
    metadata = tree["metadata"]
    return {"apiVersion": "v1", "kind": kind, "name": metadata["name"], "uid": metadata["uid"], **more}


# ── a request for a token ────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_token_says_what_upstreams_says(admin: Session) -> None:
    account = await admin.get(SERVICE_ACCOUNT, "default", "default")
    node = await admin.create(NODE, {"metadata": {"name": "n1"}})
    bound = await admin.create(POD, pod("p", nodeName="n1"))
    found = await ask(admin, boundObjectRef=reference("Pod", bound), expirationSeconds=900)
    said = claims(found["status"]["token"])
    expected = {
        "namespace": "default",
        "serviceaccount": {"name": "default", "uid": account["metadata"]["uid"]},
        "pod": {"name": "p", "uid": bound["metadata"]["uid"]},
        "node": {"name": "n1", "uid": node["metadata"]["uid"]},
    }
    assert said.keys() == {"aud", "exp", "iat", "iss", "jti", "kubernetes.io", "nbf", "sub"}
    assert said["kubernetes.io"] == expected
    assert (said["aud"], said["iss"], said["sub"]) == ([ISSUER], ISSUER, "system:serviceaccount:default:default")
    assert said["exp"] - said["iat"] == 900
    assert said["nbf"] == said["iat"]
    assert parse_time(found["status"]["expirationTimestamp"]).timestamp() == said["exp"]
    assert found["spec"]["audiences"] == [ISSUER]
    assert (found["metadata"]["name"], found["metadata"]["namespace"]) == ("default", "default")
    assert (await ask(admin))["spec"]["expirationSeconds"] == 3600


async def test_the_token_that_pods_get_outlives_clients_that_read_it_once(admin: Session) -> None:
    """As upstream: good for a year, while its pod lives, and said to expire after the hour that was asked for."""
    bound = await admin.create(POD, pod("p"))
    found = await ask(admin, boundObjectRef=reference("Pod", bound), expirationSeconds=3607)
    said = claims(found["status"]["token"])
    assert said["exp"] - said["iat"] == 365 * 24 * 3600
    assert said["kubernetes.io"]["warnafter"] == said["iat"] + 3607
    assert parse_time(found["status"]["expirationTimestamp"]).timestamp() == said["iat"] + 3607
    other = await ask(admin, boundObjectRef=reference("Pod", bound), expirationSeconds=3607, audiences=["vault"])
    assert "warnafter" not in claims(other["status"]["token"])["kubernetes.io"]


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ({"expirationSeconds": 599}, Invalid, "may not specify a duration less than 10 minutes"),
        ({"expirationSeconds": -1}, Invalid, "may not specify a duration less than 10 minutes"),
        ({"expirationSeconds": (1 << 32) + 1}, Invalid, "may not specify a duration larger than 2^32 seconds"),
        ({"expirationSeconds": "1h"}, Invalid, "spec.expirationSeconds in body must be of type integer"),
        ({"audiences": "a"}, Invalid, "spec.audiences in body must be of type array"),
        ({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "none"}}, NotFound, 'pods "none" not found'),
        ({"boundObjectRef": {"apiVersion": "v1", "kind": "Service", "name": "s"}}, BadRequest,
         "cannot bind token for serviceaccount to object of type /v1, Kind=Service"),
        ({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1"}}, Conflict,
         "the UID in the bound object reference (1) does not match the UID in record"),
        ({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "other"}}, BadRequest,
         'cannot bind token for serviceaccount "default" to pod running with different serviceaccount name.'),
    ],
)  # fmt: skip
async def test_what_no_token_is_given_for(admin: Session, spec: JSON, error: type[ApiError], message: str) -> None:
    await admin.create(SERVICE_ACCOUNT, {"metadata": {"name": "robot", "namespace": "default"}})
    await admin.create(POD, pod("p"))
    await admin.create(POD, pod("other", serviceAccountName="robot"))
    with pytest.raises(error) as refused:
        await ask(admin, **spec)
    assert message in str(refused.value)


async def test_no_account_no_token(admin: Session) -> None:
    with pytest.raises(NotFound, match='serviceaccounts "ghost" not found'):
        await ask(admin, "ghost")
    with pytest.raises(ApiError) as refused:
        await admin.raw("GET", SERVICE_ACCOUNT.path("default", "default", "token"))
    assert refused.value.code == 405


async def test_a_node_gets_tokens_for_its_pods_and_no_others(admin: Session, of: As) -> None:
    """The node authorizer, and NodeRestriction: bound to a pod by uid, on this node, for an audience it names."""
    node = of(NODE1)
    token = {"serviceAccountToken": {"path": "vault", "audience": "vault"}}
    volumes = [{"name": "v", "projected": {"sources": [token]}}]
    mine = reference("Pod", await admin.create(POD, pod("mine", nodeName="n1", volumes=volumes)))
    theirs = reference("Pod", await admin.create(POD, pod("theirs", nodeName="n2")))
    assert (await ask(node, boundObjectRef=mine))["status"]["token"]
    assert (await ask(node, boundObjectRef=mine, audiences=["vault"]))["status"]["token"]
    for spec, why in (
        ({"boundObjectRef": theirs}, "node requested token bound to a pod scheduled on a different node"),
        ({}, "node requested token not bound to a pod"),
        ({"boundObjectRef": mine | {"kind": "Secret"}}, "node requested token not bound to a pod"),
        ({"boundObjectRef": mine | {"uid": ""}}, "node requested token with a pod binding without a uid"),
        ({"boundObjectRef": mine | {"uid": "1"}}, "does not match the UID in record"),
        ({"boundObjectRef": mine, "audiences": ["bank"]}, 'audience "bank" not found in pod spec volume'),
    ):
        with pytest.raises(Forbidden) as refused:
            await ask(node, **spec)
        assert why in str(refused.value)
    await admin.create(SERVICE_ACCOUNT, {"metadata": {"name": "robot", "namespace": "default"}})
    with pytest.raises(Forbidden, match="no relationship found between node 'n1' and this object"):
        await ask(node, "robot", boundObjectRef=mine)
    with pytest.raises(Forbidden):
        await ask(of(User("somebody")))


# ── whose is it? ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_review_says_whose_a_token_is(admin: Session) -> None:
    account = await admin.get(SERVICE_ACCOUNT, "default", "default")
    bound = await admin.create(POD, pod("p", nodeName="n1"))
    token = (await ask(admin, boundObjectRef=reference("Pod", bound)))["status"]["token"]
    key = "authentication.kubernetes.io/"
    assert await review(admin, token) == {
        "authenticated": True,
        "user": {
            "username": "system:serviceaccount:default:default",
            "uid": account["metadata"]["uid"],
            "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"],
            "extra": {
                f"{key}credential-id": [f"JTI={claims(token)['jti']}"],
                f"{key}node-name": ["n1"],
                f"{key}pod-name": ["p"],
                f"{key}pod-uid": [bound["metadata"]["uid"]],
            },
        },
        "audiences": [ISSUER],
    }
    await admin.delete(POD, "default", "p", grace_seconds=0)
    gone = await review(admin, token)
    assert gone["user"] == {}
    assert "authenticated" not in gone
    assert "invalid bearer token" in gone["error"]


async def test_a_review_is_for_an_audience(admin: Session) -> None:
    token = (await ask(admin, audiences=["vault", "bank"]))["status"]["token"]
    assert (await review(admin, token, "bank", "shop"))["audiences"] == ["bank"]
    assert "authenticated" not in await review(admin, token)
    assert "authenticated" not in await review(admin, token, "shop")
    with pytest.raises(BadRequest, match="token is required for TokenReview"):
        await review(admin, "")


async def test_whoever_asks_is_told_who_it_is(of: As) -> None:
    user = User("system:serviceaccount:a:b", ("system:serviceaccounts",), "7", (("k", ("v",)),))
    found = await of(user).raw("POST", registry.SELF_SUBJECT_REVIEW.path(), body=b"{}")
    assert json.loads(found.body)["status"]["userInfo"] == {
        "username": user.name,
        "uid": "7",
        "groups": ["system:serviceaccounts", "system:authenticated"],
        "extra": {"k": ["v"]},
    }


async def test_others_can_verify_our_tokens(server: ApiServer, admin: Session) -> None:
    """By the published key alone, as a library of another system would."""
    found = json.loads((await admin.raw("GET", "/.well-known/openid-configuration")).body)
    assert found["issuer"] == ISSUER
    assert found["jwks_uri"].endswith("/openid/v1/jwks")
    answer = await admin.raw("GET", "/openid/v1/jwks")
    assert answer.content_type == "application/jwk-set+json"
    (key,) = json.loads(answer.body)["keys"]
    x, y = (int.from_bytes(base64.urlsafe_b64decode(key[part] + "="), "big") for part in "xy")
    public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert base64.urlsafe_b64decode(key["kid"] + "=") == hashlib.sha256(spki).digest()
    head, body, signature = (await ask(admin))["status"]["token"].split(".")
    assert json.loads(base64.urlsafe_b64decode(head + "==")) == {"alg": "ES256", "kid": key["kid"]}
    raw = base64.urlsafe_b64decode(signature + "==")
    numbers = utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    public.verify(numbers, f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256()))


# ── what namespaces and pods get ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_pod_right_after_its_namespace_finds_its_account(admin: Session) -> None:
    """No controller runs here: the account is written with the namespace."""
    await admin.create(NAMESPACE, {"metadata": {"name": "shop"}})
    tree = pod("p")
    tree["metadata"]["namespace"] = "shop"
    made = await admin.create(POD, tree)
    assert made["spec"]["serviceAccountName"] == "default"
    for kind, name in ((NAMESPACE, "shop"), (SERVICE_ACCOUNT, "default")):
        assert (await admin.get(kind, "shop" if kind.namespaced else "", name))["metadata"]["uid"]
    query = {"dryRun": "All"}
    await admin.raw("POST", NAMESPACE.path(), body=b'{"metadata":{"name":"never"}}', query=query)
    with pytest.raises(NotFound):
        await admin.get(SERVICE_ACCOUNT, "never", "default")


TOKEN_VOLUME = {
    "defaultMode": 420,
    "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ],
}  # fmt: skip
MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


async def test_a_pod_gets_a_volume_with_its_token(admin: Session) -> None:
    own = {"name": "own", "mountPath": MOUNT}
    containers = [{"name": "a", "image": "host"}, {"name": "b", "image": "host", "volumeMounts": [own]}]
    tree = pod("p", initContainers=[{"name": "i", "image": "host"}], volumes=[{"name": "own"}])
    tree["spec"]["containers"] = containers
    spec = (await admin.create(POD, tree))["spec"]
    (volume,) = (v for v in spec["volumes"] if v["name"] != "own")
    assert volume["name"].startswith("kube-api-access-")
    assert len(volume["name"]) == len("kube-api-access-") + 5
    assert volume["projected"] == TOKEN_VOLUME
    mount = {"name": volume["name"], "readOnly": True, "mountPath": MOUNT}
    assert [c["volumeMounts"] for c in spec["initContainers"] + spec["containers"]] == [[mount], [mount], [own]]
    assert spec["serviceAccount"] == "default"


@pytest.mark.parametrize(
    ("of_account", "of_pod", "mounted"),
    [(None, None, True), (False, None, False), (None, False, False), (False, True, True), (True, False, False)],
)
async def test_who_says_whether_a_token_is_mounted(
    admin: Session, of_account: bool | None, of_pod: bool | None, mounted: bool
) -> None:
    """The pod before its account."""
    said = {} if of_account is None else {"automountServiceAccountToken": of_account}
    await admin.create(SERVICE_ACCOUNT, {"metadata": {"name": "robot", "namespace": "default"}, **said})
    spec = {} if of_pod is None else {"automountServiceAccountToken": of_pod}
    made = await admin.create(POD, pod("p", serviceAccountName="robot", **spec))
    assert bool(made["spec"].get("volumes")) is mounted


async def test_a_pod_gets_its_accounts_pull_secrets_unless_it_has_its_own(admin: Session) -> None:
    robot = {"metadata": {"name": "robot", "namespace": "default"}, "imagePullSecrets": [{"name": "registry"}]}
    await admin.create(SERVICE_ACCOUNT, robot)
    made = await admin.create(POD, pod("p", serviceAccountName="robot"))
    assert made["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    own = await admin.create(POD, pod("q", serviceAccountName="robot", imagePullSecrets=[{"name": "own"}]))
    assert own["spec"]["imagePullSecrets"] == [{"name": "own"}]


async def test_a_pod_without_its_account_is_refused(admin: Session) -> None:
    with pytest.raises(Forbidden) as refused:
        await admin.create(POD, pod("p", serviceAccountName="ghost"))
    why = 'error looking up service account default/ghost: serviceaccount "ghost" not found'
    assert str(refused.value) == f'pods "p" is forbidden: {why}'


async def test_a_deleted_default_account_is_waited_for(admin: Session) -> None:
    """The controllers make it again; meanwhile nobody's pod is refused."""
    await admin.delete(SERVICE_ACCOUNT, "default", "default")
    making = asyncio.create_task(admin.create(POD, pod("p")))
    await asyncio.sleep(0)
    await admin.create(SERVICE_ACCOUNT, {"metadata": {"name": "default", "namespace": "default"}})
    assert (await making)["spec"]["volumes"]


async def test_what_admission_adds_is_nobodys(admin: Session) -> None:
    """Else a client that moves from client-side to server-side apply would take it away again."""
    tree = pod("p", container={"volumeMounts": [{"name": "v", "mountPath": "/v"}]}, volumes=[{"name": "v"}])
    for made in (await admin.create(POD, pod("bare")), await admin.create(POD, tree)):
        (entry,) = made["metadata"]["managedFields"]
        assert "kube-api-access" not in json.dumps(entry)
        assert MOUNT not in json.dumps(entry)
    assert 'k:{\\"name\\":\\"v\\"}' in json.dumps(entry)
    assert 'k:{\\"mountPath\\":\\"/v\\"}' in json.dumps(entry)


def test_a_template_is_left_alone() -> None:
    """Only a pod has an account's volume: a Deployment shows what its author wrote."""
    spec: JSON = {"containers": [{"name": "c"}]}
    added = accounts.give({"spec": spec}, {"automountServiceAccountToken": False}, lambda _: 0)
    assert (added, spec) == ([], {"containers": [{"name": "c"}]})


# ── Secrets that hold one ────────────────────────────────────────────────────────────────────────────────────────────

TYPE = "kubernetes.io/service-account-token"
NAMED = {"kubernetes.io/service-account.name": "default"}


def secret(name: str, annotations: JSON = NAMED) -> JSON:
    return {"metadata": {"name": name, "namespace": "default", "annotations": annotations}, "type": TYPE}


async def test_a_secret_for_a_token_is_filled(admin: Session) -> None:
    account = await admin.get(SERVICE_ACCOUNT, "default", "default")
    made = await admin.create(SECRET, secret("s"))
    assert made["metadata"]["annotations"]["kubernetes.io/service-account.uid"] == account["metadata"]["uid"]
    assert base64.b64decode(made["data"]["namespace"]) == b"default"
    token = base64.b64decode(made["data"]["token"]).decode()
    assert claims(token) == {
        "iss": "kubernetes/serviceaccount",
        "kubernetes.io/serviceaccount/namespace": "default",
        "kubernetes.io/serviceaccount/secret.name": "s",
        "kubernetes.io/serviceaccount/service-account.name": "default",
        "kubernetes.io/serviceaccount/service-account.uid": account["metadata"]["uid"],
        "sub": "system:serviceaccount:default:default",
    }
    assert (await review(admin, token))["user"]["username"] == "system:serviceaccount:default:default"
    await admin.patch(SECRET, "default", "s", {"data": {"token": None}})
    again = await admin.get(SECRET, "default", "s")
    assert base64.b64decode(again["data"]["token"]).decode().count(".") == 2


async def test_a_secret_for_a_token_must_name_its_account(admin: Session) -> None:
    with pytest.raises(Invalid, match=r"metadata.annotations\[kubernetes.io/service-account.name\]: Required value"):
        await admin.create(SECRET, secret("s", {}))


# ── impersonation ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_administrator_may_be_any_account(server: ApiServer) -> None:
    headers = {
        "impersonate-user": "system:serviceaccount:default:default",
        "impersonate-uid": "7",
        "impersonate-extra-example.com%2fscope": "a, b",
    }
    request = Request("POST", registry.SELF_SUBJECT_REVIEW.path(), {}, headers, b"{}", ADMIN)
    found = json.loads((await server.handler(request)).body)["status"]["userInfo"]
    assert found == {
        "username": "system:serviceaccount:default:default",
        "uid": "7",
        "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"],
        "extra": {"example.com/scope": ["a", "b"]},
    }
    only_users = User("some", ())
    request = Request("POST", registry.SELF_SUBJECT_REVIEW.path(), {}, headers, b"{}", only_users)
    assert (await server.handler(request)).status == 403

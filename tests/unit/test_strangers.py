"""What a server that is exposed answers those who show it a token that isn't good, or isn't good any more.

Certificates that aren't are in test_apiserver_tls; good ones without a role, and nodes', in test_access."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from kubesvc.api import registry
from kubesvc.api.meta import JSON
from kubesvc.apiserver import listener
from kubesvc.apiserver.authentication import claims, jwt
from kubesvc.apiserver.authentication.claims import Bound, Reference
from kubesvc.apiserver.authentication.keys import SigningKey, text
from kubesvc.client.kubeconfig import tls_context
from support.apiserver import ServerThread, tls_server

ISSUER = "https://kubernetes.default.svc.cluster.local"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    with tls_server(tmp_path_factory.mktemp("apiserver")) as running:
        yield running


@pytest.fixture(scope="module")
def key(server: ServerThread) -> SigningKey:
    """The server's own: with it a test can sign what the server never would."""
    return SigningKey.load(server.directory / "sa.key")


def tls(server: ServerThread, name: str = "") -> ssl.SSLContext:
    ca = (server.directory / "ca.crt").read_bytes()
    if not name:
        return tls_context(ca, None, None)
    return tls_context(ca, *((server.directory / f"{name}.{end}").read_bytes() for end in ("crt", "key")))


async def answer(
    server: ServerThread, token: str | None, path: str = "/api", *, certificate: str = "", header: str = "Bearer {}"
) -> tuple[int, str]:
    """(status, body) of a GET by whoever shows this token and this certificate."""
    headers = {} if token is None else {"authorization": header.format(token)}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls(server, certificate))) as http:
        found = await http.get(f"https://127.0.0.1:{server.port}{path}", headers=headers)
        return found.status, await found.text()


def make(server: ServerThread, kind: registry.Kind, name: str, **more: Any) -> JSON:
    tree = {"metadata": {"name": name, "namespace": "default"}, **more}
    return server.run(server.session().create(kind, tree))


def remove(server: ServerThread, kind: registry.Kind, name: str) -> None:
    server.run(server.session().delete(kind, "default", name, grace_seconds=0))


def requested(server: ServerThread, account: str, bound: JSON | None = None, **spec: Any) -> str:
    body = {"spec": {**spec, **({"boundObjectRef": bound} if bound else {})}}
    path = registry.SERVICE_ACCOUNT.path("default", account, "token")
    found = server.run(server.session().raw("POST", path, body=json.dumps(body).encode()))
    token: str = json.loads(found.body)["status"]["token"]
    return token


def said(uid: str, **more: Any) -> JSON:
    """Claims of default/default as the server would write them, but for what is given here."""
    content = Bound("default", Reference("default", uid))
    usual = claims.bound(content, issuer=ISSUER, audiences=[ISSUER], id="1", now=int(time.time()), seconds=3600)
    return {name: value for name, value in (usual | more).items() if value is not None}


def by_hand(key: SigningKey, header: JSON, content: JSON) -> str:
    first = f"{text(json.dumps(header).encode())}.{text(json.dumps(content).encode())}"
    return f"{first}.{text(key.sign(first.encode()))}"


@pytest.fixture
def uid(server: ServerThread) -> str:
    found = server.run(server.session().get(registry.SERVICE_ACCOUNT, "default", "default"))
    return str(found["metadata"]["uid"])


async def test_a_good_token_is_let_in_and_named(server: ServerThread, key: SigningKey, uid: str) -> None:
    """What all the refusals below differ from."""
    token = jwt.write(key, said(uid))
    assert (await answer(server, token))[0] == 200
    status, body = await answer(server, token, "/api/v1/namespaces/default/pods")
    assert status == 403
    assert 'User \\"system:serviceaccount:default:default\\" cannot list resource \\"pods\\"' in body


GARBAGE = [
    "", "x", "a.b", "a.b.c", "....", "e30.e30.", "e30.e30.e30", "\u00e9.\u00e9.\u00e9", "=.=.=", "null",
    "x" * 7000, ".".join(["x" * 2000] * 3), f"{text(b'[]')}.{text(b'[]')}.{text(b'x' * 64)}",
    f"{text(b'{')}.{text(b'{}')}.{text(b'x' * 64)}",
]  # fmt: skip


@pytest.mark.parametrize("token", GARBAGE, ids=lambda token: ascii(token)[:20])
async def test_what_is_no_token_is_nobody(server: ServerThread, token: str) -> None:
    assert (await answer(server, token))[0] == 401
    assert (await answer(server, token, "/livez"))[0] == 200


@pytest.mark.parametrize("header", ["Basic {}", "{}", "Bearer", "Token {}", "bearer\t{}"])
async def test_another_scheme_is_nobody(server: ServerThread, key: SigningKey, uid: str, header: str) -> None:
    assert (await answer(server, jwt.write(key, said(uid)), header=header))[0] == 401


WRONG: dict[str, JSON] = {
    "expired": {"exp": int(time.time()) - 120},
    "never expiring": {"exp": None},
    "an expiry that is text": {"exp": "tomorrow"},
    "not valid yet": {"nbf": int(time.time()) + 86400},
    "another audience": {"aud": ["https://vault.example"]},
    "no audience": {"aud": []},
    "audience of no kind": {"aud": 7},
    "another issuer": {"iss": "https://kubernetes.default.svc.other"},
    "somebody else's subject": {"sub": "system:serviceaccount:kube-system:default"},
    "an administrator": {"sub": "admin"},
    "an account that isn't there": {
        "sub": "system:serviceaccount:default:ghost",
        "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": "ghost", "uid": "1"}},
    },
    "of another namespace": {
        "sub": "system:serviceaccount:kube-public:default",
        "kubernetes.io": {"namespace": "kube-public", "serviceaccount": {"name": "default", "uid": "1"}},
    },
    "a path as a namespace": {
        "sub": "system:serviceaccount:../x:default",
        "kubernetes.io": {"namespace": "../x", "serviceaccount": {"name": "default", "uid": "1"}},
    },
    "no claim of ours": {"kubernetes.io": None},
    "a claim of the wrong shape": {"kubernetes.io": ["default"]},
    "legacy, without its Secret": {"iss": "kubernetes/serviceaccount"},
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_token_that_says_the_wrong_thing_is_nobody(
    server: ServerThread, key: SigningKey, uid: str, name: str
) -> None:
    """Even where our own key has signed it."""
    assert (await answer(server, jwt.write(key, said(uid, **WRONG[name]))))[0] == 401


async def test_a_token_that_our_key_didnt_sign_is_nobody(server: ServerThread, key: SigningKey, uid: str) -> None:
    """Of another cluster; with our key's id; with no algorithm; with one that takes our public key for a secret."""
    other, good = SigningKey.generate(), jwt.write(key, said(uid))
    head, body, signature = good.split(".")
    changed = text(json.dumps(said(uid, jti="2")).encode())
    flipped = bytearray(base64.urlsafe_b64decode(signature + "=="))
    flipped[40] ^= 1
    refused = {
        "another cluster's": jwt.write(other, said(uid)),
        "under our name": by_hand(other, {"alg": "ES256", "kid": key.id}, said(uid)),
        "no key named": by_hand(key, {"alg": "ES256"}, said(uid)),
        "alg none": by_hand(key, {"alg": "none", "kid": key.id}, said(uid)),
        "alg HS256": by_hand(key, {"alg": "HS256", "kid": key.id}, said(uid)),
        "crit": by_hand(key, {"alg": "ES256", "kid": key.id, "crit": ["x"]}, said(uid)),
        "changed": f"{head}.{changed}.{signature}",
        "no signature": f"{head}.{body}.",
        "half of it": f"{head}.{body}.{signature[:40]}",
        "another signature": f"{head}.{body}.{text(bytes(flipped))}",
        "zeroes": f"{head}.{body}.{text(bytes(64))}",
    }
    found = {name: (await answer(server, token))[0] for name, token in refused.items()}
    assert found == dict.fromkeys(refused, 401)
    assert (await answer(server, good))[0] == 200


async def test_a_pods_token_ends_with_the_pod(server: ServerThread) -> None:
    """At once, though it was let in a moment ago; and it isn't that of another pod under the same name."""
    container = {"name": "c", "image": "host", "command": ["true"]}
    pod = make(server, registry.POD, "shortlived", spec={"containers": [container]})
    bound = {"apiVersion": "v1", "kind": "Pod", "name": "shortlived", "uid": pod["metadata"]["uid"]}
    token = requested(server, "default", bound)
    assert (await answer(server, token))[0] == 200
    remove(server, registry.POD, "shortlived")
    assert (await answer(server, token))[0] == 401
    make(server, registry.POD, "shortlived", spec={"containers": [container]})
    status, body = await answer(server, token)
    assert (status, json.loads(body)["reason"]) == (401, "Unauthorized")
    remove(server, registry.POD, "shortlived")


async def test_a_secrets_token_ends_with_the_secret(server: ServerThread) -> None:
    secret = make(server, registry.SECRET, "pin")
    bound = {"apiVersion": "v1", "kind": "Secret", "name": "pin", "uid": secret["metadata"]["uid"]}
    token = requested(server, "default", bound)
    assert (await answer(server, token))[0] == 200
    remove(server, registry.SECRET, "pin")
    assert (await answer(server, token))[0] == 401


async def test_an_account_made_again_is_another(server: ServerThread) -> None:
    make(server, registry.SERVICE_ACCOUNT, "robot")
    old = requested(server, "robot")
    assert (await answer(server, old))[0] == 200
    remove(server, registry.SERVICE_ACCOUNT, "robot")
    assert (await answer(server, old))[0] == 401
    make(server, registry.SERVICE_ACCOUNT, "robot")
    assert (await answer(server, old))[0] == 401
    assert (await answer(server, requested(server, "robot")))[0] == 200


async def test_a_legacy_token_ends_with_its_secret(server: ServerThread) -> None:
    """And with the Secret's holding another."""
    annotations = {"kubernetes.io/service-account.name": "default"}
    tree = {"metadata": {"name": "legacy", "namespace": "default", "annotations": annotations},
            "type": "kubernetes.io/service-account-token"}  # fmt: skip
    made = server.run(server.session().create(registry.SECRET, tree))
    token = base64.b64decode(made["data"]["token"]).decode()
    assert (await answer(server, token))[0] == 200
    patch = {"data": {"token": base64.b64encode(b"x").decode()}}
    server.run(server.session().patch(registry.SECRET, "default", "legacy", patch))
    assert (await answer(server, token))[0] == 401
    server.run(server.session().patch(registry.SECRET, "default", "legacy", {"data": made["data"]}))
    assert (await answer(server, token))[0] == 200
    remove(server, registry.SECRET, "legacy")
    assert (await answer(server, token))[0] == 401


async def test_a_bootstrap_token_is_let_in_until_its_secret_is_gone(server: ServerThread) -> None:
    """A machine that isn't a node yet: its group's rights and no more."""
    data = {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"}
    metadata = {"name": "bootstrap-token-abcdef", "namespace": "kube-system"}
    tree = {"metadata": metadata, "type": "bootstrap.kubernetes.io/token", "stringData": data}
    server.run(server.session().create(registry.SECRET, tree))
    token, namespaces = "abcdef.0123456789abcdef", "/api/v1/namespaces"
    status, body = await answer(server, token, namespaces)
    assert (status, 'User \\"system:bootstrap:abcdef\\" cannot list' in body) == (403, True)
    assert reviewed(server, token)["user"]["groups"] == ["system:bootstrappers", "system:authenticated"]
    assert not reviewed(server, token, "https://elsewhere.example").get("authenticated")
    assert (await answer(server, token[:-1] + "0", namespaces))[0] == 401
    server.run(server.session().delete(registry.SECRET, "kube-system", "bootstrap-token-abcdef"))
    assert (await answer(server, token, namespaces))[0] == 401
    assert not reviewed(server, token).get("authenticated")


def reviewed(server: ServerThread, token: str, *audiences: str) -> JSON:
    spec = {"token": token, "audiences": list(audiences)}
    found = server.run(server.session().create(registry.TOKEN_REVIEW, {"metadata": {}, "spec": spec}))
    status: JSON = found["status"]
    return status


async def test_what_a_stranger_sends_is_not_waited_for(server: ServerThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor kept: the answer is there before the body."""
    monkeypatch.setattr(listener, "_BODY_SECONDS", 3600.0)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=tls(server))
    writer.write(b"POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n{")
    answer = await asyncio.wait_for(reader.readuntil(b'"code":401}'), 60)
    writer.transport.abort()
    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_a_certificate_goes_before_a_token(server: ServerThread) -> None:
    """As upstream: a token that isn't good takes nothing from a certificate that is."""
    assert (await answer(server, "garbage", "/api/v1/nodes", certificate="admin"))[0] == 200


async def test_a_stranger_may_not_read_the_keys(server: ServerThread, key: SigningKey, uid: str) -> None:
    """Discovery of tokens' keys is for ServiceAccounts, until somebody binds the role to others."""
    for path in ("/openid/v1/jwks", "/.well-known/openid-configuration"):
        assert (await answer(server, None, path))[0] == 401
        assert (await answer(server, jwt.write(key, said(uid)), path))[0] == 200

"""`kubesvc dns` alone: the real command against an API server it knows nothing of."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode
import pytest
import yaml
from msgspec.structs import replace

from kubesvc.api.errors import NotFound
from kubesvc.api.registry import ENDPOINT_SLICE, NODE, SERVICE
from kubesvc.client import kubeconfig
from kubesvc.client.kubeconfig import KubeconfigError
from kubesvc.client.session import Session
from kubesvc.client.transport import LocalTransport, Request, Response
from kubesvc.dns import standalone
from kubesvc.dns.settings import Settings
from kubesvc.dns.standalone import Options
from support.apiserver import ADMIN, ServerThread, local_server, tls_server
from support.box import eventually
from support.dns_upstream import bound_pair
from support.dns_zone import texts
from support.ports import free_port

COMMAND = [sys.executable, "-c", "from kubesvc.cli.main import main; main()", "dns"]
PATIENT = "from kubesvc.dns import main, standalone; main.WITHDRAW_SECONDS = standalone.PATIENT = 60; "
NODE_TREE = {"metadata": {"name": "host1"}, "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]}}
WEB = {"metadata": {"name": "web", "namespace": "default"}, "spec": {"ports": [{"name": "http", "port": 80}]}}
SHOP = {
    "metadata": {
        "name": "shop",
        "namespace": "default",
        "annotations": {"kubesvc.dev/hostname": "shop.example.com,shop.example.org"},
    },
    "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
}


@dataclass
class Running:
    process: subprocess.Popen[str]
    port: int
    http: int

    def ask(self, name: str, kind: str = "A", timeout: float = 60) -> dns.message.Message:
        return dns.query.udp(dns.message.make_query(name, kind), "127.0.0.1", port=self.port, timeout=timeout)

    def get(self, path: str, timeout: float = 60) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    with tls_server(tmp_path_factory.mktemp("api")) as one:
        session = one.session()
        one.run(session.create(NODE, NODE_TREE))
        one.run(session.create(SERVICE, WEB))
        one.run(session.create(SERVICE, SHOP))
        status = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}}
        one.run(session.patch(SERVICE, "default", "shop", status, subresource="status"))
        yield one


@contextmanager
def running(kubeconfig_: Path, *words: str) -> Iterator[Running]:
    """The command; it must end by itself on SIGTERM, with status 0 and no traceback."""
    port, http = free_port(), free_port()
    bind = ["--bind-address", f"127.0.0.1:{port}", "--http-bind-address", f"127.0.0.1:{http}", "--lameduck", "0"]
    process = subprocess.Popen(
        [sys.executable, "-c", PATIENT + COMMAND[2], "dns", "--kubeconfig", str(kubeconfig_), *bind, *words],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    try:
        yield Running(process, port, http)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert "Traceback" not in said, said
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_it_answers_for_any_cluster(server: ServerThread, tmp_path: Path) -> None:
    """Names of both zones, reverse names by the API's networks, hosts, public names; health, readiness, metrics."""
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("")
    words = [
        "--dns-domain",
        "cluster.local,corp.internal",
        "--public-zone",
        "example.com",
        "--transfer-to",
        "127.0.0.1",
    ]
    words += ["--host", "git.corp.example=10.0.0.7", "--ttl", "30", "--resolv-conf", str(resolv)]
    with running(server.kubeconfig, *words) as one:
        eventually(lambda: one.get("/ready", 5)[0] == 200, what="/ready")
        address = server.run(server.session().get(SERVICE, "default", "web"))["spec"]["clusterIP"]
        for zone in ("cluster.local", "corp.internal"):
            found = one.ask(f"web.default.svc.{zone}")
            assert texts(found) == [f"A {address}"]
            assert found.answer[0].ttl == 30
        reverse = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
        assert texts(one.ask(reverse, "PTR")) == ["PTR web.default.svc.cluster.local."]
        for name in ("9.9.96.10.in-addr.arpa", "9.0.244.10.in-addr.arpa"):
            missing = one.ask(name, "PTR")
            assert missing.rcode() == dns.rcode.NXDOMAIN
            assert missing.authority[0].name.to_text().endswith("10.in-addr.arpa.")
        assert texts(one.ask("git.corp.example")) == ["A 10.0.0.7"]
        assert texts(one.ask("shop.example.com")) == ["A 192.0.2.7"]
        zone = list(dns.query.xfr("127.0.0.1", "example.com", port=one.port, lifetime=60, relativize=False))
        assert "shop.example.com. 30 IN A 192.0.2.7" in zone[0].to_text()
        assert one.get("/health")[0] == 200
        assert 'coredns_dns_requests_total{server="dns://:' in one.get("/metrics")[1]


def test_lameduck_goes_on_answering_but_is_not_ready(server: ServerThread) -> None:
    """Told to end, it lets balancers notice first; told again, it ends at once."""
    with running(server.kubeconfig, "--lameduck", "60") as one:
        eventually(lambda: one.get("/ready", 5)[0] == 200, what="/ready")
        one.process.send_signal(signal.SIGTERM)
        eventually(lambda: one.get("/ready", 5)[0] == 503, what="no longer /ready")
        assert "about to end" in one.get("/ready")[1]
        assert one.get("/health")[0] == 200
        assert one.ask("web.default.svc.cluster.local").answer
        assert one.process.poll() is None


def test_serial_is_the_same_after_a_restart_and_rises_with_changes(server: ServerThread) -> None:
    """A secondary never sees it fall."""

    def serial(one: Running) -> int:
        eventually(lambda: one.get("/ready", 5)[0] == 200, what="/ready")
        return int(one.ask("cluster.local", "SOA").answer[0][0].serial)

    with running(server.kubeconfig) as one:
        first = serial(one)
        made = server.run(server.session().create(SERVICE, {**WEB, "metadata": {"name": "x", "namespace": "default"}}))
        revision = int(made["metadata"]["resourceVersion"])
        eventually(lambda: serial(one) >= revision, what="a new serial")
        before = serial(one)
    assert first < before
    server.run(server.session().delete(SERVICE, "default", "x"))
    with running(server.kubeconfig) as one:
        assert serial(one) > before


def test_announced_it_is_behind_kube_dns(server: ServerThread) -> None:
    """With --announce, under its Node's name and its own address; withdrawn at the end."""

    def found() -> dict | None:
        try:
            return server.run(server.session().get(ENDPOINT_SLICE, "kube-system", "kube-dns-host1"))
        except NotFound:
            return None

    with running(server.kubeconfig, "--announce", "--hostname-override", "host1", "--node-ip", "192.0.2.9") as one:
        tree = eventually(found, what="a slice")
        assert tree["endpoints"][0]["addresses"] == ["192.0.2.9"]
        assert {port["port"] for port in tree["ports"]} == {one.port}
    assert found() is None


def test_not_ready_before_the_api_has_been_read(tmp_path: Path) -> None:
    """Alive, not ready, and SERVFAIL for the cluster's names; hosts are answered."""
    config = tmp_path / "kubeconfig"
    tree = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"https://127.0.0.1:{free_port()}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    config.write_text(json.dumps(tree))
    words = ["--cluster-cidr", "10.96.0.0/16", "--host", "git.corp.example=10.0.0.7"]
    with running(config, *words) as one:
        eventually(lambda: one.get("/health", 5)[0] == 200, what="/health")
        assert one.get("/ready")[0] == 503

        def answered() -> dns.message.Message | None:
            try:
                return one.ask("web.default.svc.cluster.local", timeout=2)
            except dns.exception.Timeout:
                return None

        found = eventually(answered, what="an answer")
        assert found.rcode() == dns.rcode.SERVFAIL
        assert texts(one.ask("git.corp.example")) == ["A 10.0.0.7"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dns-domain", "a.b,x.a.b"], "x.a.b lies in the cluster's zone a.b"),
        (["--transfer-to", "everyone"], "--transfer-to 'everyone'"),
        (["--bind-address", "nowhere"], "expected IP, IP:PORT or [IPv6]:PORT"),
        (["--cluster-cidr", "10.0.0.1/8"], "expected CIDRs such as 10.96.0.0/16"),
        (["--node-ip", "host1"], "expected an IP address"),
        (["--bind-address", "192.0.2.1:53"], "name another with --bind-address"),
        (["--kubeconfig", "/nonexistent"], "can't be read as a kubeconfig"),
        ([], "KUBERNETES_SERVICE_HOST is not set"),
    ],
)
def test_what_is_wrong_is_named(server: ServerThread, words: list[str], message: str) -> None:
    """One line, no traceback."""
    given = words if not words or "--kubeconfig" in words else ["--kubeconfig", str(server.kubeconfig), *words]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KUBERNETES_")}
    found = subprocess.run([*COMMAND, *given], capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert found.returncode != 0
    assert message in " ".join(found.stderr.split()), found.stderr
    assert "Traceback" not in found.stderr


def test_records_are_listed(server: ServerThread) -> None:
    """`kubesvc dns records`: what to create, and what is served."""
    words = ["records", "--kubeconfig", str(server.kubeconfig), "--public-zone", "example.com"]
    found = subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.splitlines() == [
        "; create these where their domains are hosted",
        "shop.example.org. 300 IN A 192.0.2.7  ; default/shop",
        "; served by this cluster",
        "shop.example.com. 300 IN A 192.0.2.7  ; default/shop",
    ]


def test_pods_service_account_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its server from the environment; what is missing is named."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    with pytest.raises(KubeconfigError, match="service account can't be used"):
        kubeconfig.in_cluster(tmp_path)


MANIFEST = Path(__file__).parents[2] / "examples" / "dns" / "kubesvc-dns.yaml"
VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}


def verb_and_resource(request: Request) -> tuple[str, str, str, str]:
    """(verb, API group, resource, namespace) of a request, as authorisation sees it."""
    parts = request.path.strip("/").split("/")
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    verb = VERBS.get(request.method) or ("get" if len(rest) > 1 else "watch" if "watch" in request.query else "list")
    return verb, group, rest[0], namespace


def allowed() -> set[tuple[str, str, str, str]]:
    """The same, of every rule in the manifest; namespace "" is all of them."""
    found = set()
    for tree in yaml.safe_load_all(MANIFEST.read_text()):
        for rule in tree.get("rules", ()):
            where = tree["metadata"].get("namespace", "")
            for group, resource, verb in product(rule["apiGroups"], rule["resources"], rule["verbs"]):
                found.add((verb, group, resource, where))
    return found


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 (a state of the code under test, which has no event for it)
            await asyncio.sleep(0.01)


async def test_manifest_allows_what_is_asked_and_no_more() -> None:
    """Every request of a server that does all it can, against the roles."""
    seen: set[tuple[str, str, str, str]] = set()

    class Recording(LocalTransport):
        async def send(self, request: Request) -> Response:
            seen.add(verb_and_resource(request))
            return await super().send(request)

    async with local_server() as api:
        session = Session(Recording(api.handler, ADMIN))
        await session.create(NODE, NODE_TREE)
        seen.clear()
        udp, tcp = bound_pair()
        options = Options(kubeconfig=None, settings=Settings(), node_name="host1", node_ip="10.244.0.9", announce=True)
        serving = asyncio.create_task(standalone.run(session, replace(options, drain_seconds=0), (udp,), (tcp,), None))
        try:
            await until(lambda: ("create", "discovery.k8s.io", "endpointslices", "kube-system") in seen)
            spec = {"type": "ExternalName", "externalName": "192.0.2.1"}
            await Session(LocalTransport(api.handler, ADMIN)).create(
                SERVICE, {"metadata": {"name": "ext", "namespace": "default"}, "spec": spec}
            )
            await until(lambda: ("create", "", "events", "default") in seen)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            udp.close()
            tcp.close()
    rules = allowed()
    assert ("delete", "discovery.k8s.io", "endpointslices", "kube-system") in seen
    for verb, group, resource, namespace in seen:
        assert (verb, group, resource, "") in rules or (verb, group, resource, namespace) in rules
    unused = {rule for rule in rules if not any(rule[:3] == one[:3] for one in seen)}
    assert unused <= {("patch", "", "events", ""), ("patch", "discovery.k8s.io", "endpointslices", "kube-system")}

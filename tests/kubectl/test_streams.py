"""exec, attach, logs, cp, port-forward and proxy by both kubectls, on a box: bytes that go both ways, and end."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.box import BoxUnderTest, eventually, kubectls
from support.terminal import Terminal

BIG = 10 << 20

SERVER = """
import hashlib, http.server, os, socketserver, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body, left, count = hashlib.sha256(), length, 0
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body.update(self.rfile.read(size)); self.rfile.readline(); count += size
            self.rfile.readline()
        while left:
            piece = self.rfile.read(min(left, 65536)); left -= len(piece); count += len(piece); body.update(piece)
        if self.headers.get("Upgrade") == "echo":
            self.send_response(101)
            self.send_header("Connection", "Upgrade"); self.send_header("Upgrade", "echo"); self.end_headers()
            while data := self.connection.recv(65536):
                self.connection.sendall(data)
            self.close_connection = True
            return
        status, more = 200, {}
        text = " ".join([self.command, self.path, str(count), body.hexdigest(), self.headers.get("X-Mine", "-")])
        if self.path == "/moved":
            status, more = 302, {"Location": "/elsewhere?a=b"}
        if self.path == "/broken":
            status = 418
        data = os.urandom(1 << 20) * 10 if self.path == "/big" else text.encode()
        if self.path == "/big":
            more = {"X-Sum": hashlib.sha256(data).hexdigest()}
        self.send_response(status)
        for name, value in more.items(): self.send_header(name, value)
        self.send_header("Set-Cookie", "a=1"); self.send_header("Set-Cookie", "b=2")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD": self.wfile.write(data)
    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = answer
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
Server(("", 8080), Handler).serve_forever()
"""


def container(name: str, *command: str, **more: object) -> dict[str, object]:
    return {"name": name, "image": "host", "command": list(command), **more}


def pod(name: str, *containers: dict[str, object], **spec: object) -> dict[str, object]:
    base = {"terminationGracePeriodSeconds": 1, "containers": list(containers), **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": base}


def manifest() -> str:
    ports = [{"name": "http", "containerPort": 8080}]
    ready = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": pod("web", container("web", "python3", "-u", "-c", SERVER, ports=ports, readinessProbe=ready))["spec"],
    }
    web = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    }
    reader = "while read line; do echo got $line; done; echo no more"
    items = [
        web,
        service,
        pod("tool", container("tool", "sleep", "infinity")),
        pod("reader", container("main", "sh", "-c", reader, stdin=True)),
        pod("shell", container("main", "sh", stdin=True, tty=True)),
        pod(
            "two",
            container("one", "sh", "-c", "for i in 1 2 3 4 5; do echo one $i; done; exec sleep infinity"),
            container("other", "sh", "-c", "echo other; exec sleep infinity"),
        ),
        pod("again", container("main", "sh", "-c", "echo said by $HOSTNAME; sleep 0.3; exit 1")),
    ]
    return "\n---\n".join(json.dumps(item) for item in items)


class Streams:
    """One kubectl in the namespace of this module."""

    def __init__(self, box: BoxUnderTest, program: str, namespace: str) -> None:
        self.box, self.program, self.namespace = box, program, namespace
        home = tempfile.mkdtemp(prefix="ks-home-")
        self.env = {"PATH": os.environ["PATH"], "KUBECONFIG": str(box.kubeconfig), "HOME": home}

    def command(self, *words: str) -> list[str]:
        return [self.program, "-n", self.namespace, *words]

    def run(self, *words: str, input: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command(*words), input=input, env=self.env | env, capture_output=True, timeout=90, check=False
        )

    def __call__(self, *words: str, input: bytes = b"", **env: str) -> str:
        done = self.run(*words, input=input, **env)
        assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout.decode()

    def pod(self, app: str = "web") -> str:
        return self("get", "pods", "-l", f"app={app}", "-o", "jsonpath={.items[0].metadata.name}")

    @contextmanager
    def terminal(self, *words: str, **env: str) -> Iterator[Terminal]:
        terminal = Terminal(self.command(*words), self.env | env)
        try:
            yield terminal
        finally:
            terminal.close()

    @contextmanager
    def started(self, *words: str, **env: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            self.command(*words), env=self.env | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    @contextmanager
    def forwarded(self, target: str, port: int, **env: str) -> Iterator[str]:
        """`kubectl port-forward TARGET :PORT`; the URL."""
        with self.started("port-forward", target, f":{port}", "--address=127.0.0.1", **env) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            assert found, line + process.stdout.read()
            yield f"http://127.0.0.1:{found[1]}"


@pytest.fixture(scope="module")
def streams_namespace(three_nodes: BoxUnderTest) -> Iterator[str]:
    three_nodes.kubectl("create", "namespace", "streams")
    three_nodes.kubectl("-n", "streams", "apply", "-f", "-", input=manifest())
    three_nodes.kubectl("-n", "streams", "rollout", "status", "deployment/web", "--timeout=60s")
    pods = ("pod/tool", "pod/reader", "pod/shell", "pod/two")
    three_nodes.kubectl("-n", "streams", "wait", "--for=condition=Ready", "--timeout=60s", *pods)
    for container, last in (("one", "one 5\n"), ("other", "other\n")):
        words = ("-n", "streams", "logs", "two", "-c", container)
        eventually(lambda words=words, last=last: three_nodes.kubectl(*words).endswith(last))
    yield "streams"
    three_nodes.kubectl("delete", "namespace", "streams", "--wait=false")


@pytest.fixture(params=kubectls(), ids=["newest", "machine's"][: len(kubectls())])
def kubectl(request: pytest.FixtureRequest, three_nodes: BoxUnderTest, streams_namespace: str) -> Streams:
    return Streams(three_nodes, request.param, streams_namespace)


over = pytest.mark.parametrize(
    "websockets", ["true", "false"], ids=["websocket", "spdy"]
)  # the variables kubectl reads: which way it goes first


# ── exec ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@over
def test_exec_keeps_outputs_apart_and_passes_the_exit_code(kubectl: Streams, websockets: str) -> None:
    env = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": websockets}
    done = kubectl.run("exec", "tool", "--", "sh", "-c", "echo out; echo err >&2; exit 7", **env)
    assert (done.stdout, done.returncode) == (b"out\n", 7)
    assert b"err\n" in done.stderr
    assert b"command terminated with exit code 7" in done.stderr


@over
def test_exec_passes_stdin_whole_and_its_end(kubectl: Streams, websockets: str) -> None:
    """`sha256sum` answers only when its input has ended."""
    sent = os.urandom(3 << 20)
    env = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": websockets}
    found = kubectl("exec", "-i", "tool", "--", "sha256sum", input=sent, **env)
    assert found.split()[0] == hashlib.sha256(sent).hexdigest()


def test_exec_sends_all_output_however_large(kubectl: Streams) -> None:
    done = kubectl.run("exec", "tool", "--", "head", "-c", "8000000", "/dev/zero")
    assert (len(done.stdout), done.returncode) == (8_000_000, 0)


@over
def test_exec_on_a_terminal_follows_its_size(kubectl: Streams, websockets: str) -> None:
    env = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": websockets}
    with kubectl.terminal("exec", "-it", "tool", "--", "sh", **env) as terminal:
        terminal.expect("# ")
        terminal.type("test -t 0 && echo a 'terminal'\n")
        terminal.expect("a terminal")
        terminal.type("while [ \"$(stty size)\" != '30 100' ]; do :; done; echo size is 'right'\n")
        terminal.expect("size is right")
        terminal.resize(41, 132)
        terminal.type("while [ \"$(stty size)\" != '41 132' ]; do :; done; echo size is 'new'\n")
        terminal.expect("size is new")
        terminal.type("exit 5\n")
        assert terminal.wait() == 5


def test_exec_that_the_node_refuses_says_why(kubectl: Streams) -> None:
    assert (
        b"container nobody is not valid for pod tool"
        in kubectl.run("exec", "tool", "-c", "nobody", "--", "true").stderr
    )
    assert b"nosuchprogram" in kubectl.run("exec", "tool", "--", "nosuchprogram").stderr


@over
def test_a_command_ends_with_its_client(kubectl: Streams, websockets: str) -> None:
    env = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": websockets}
    with kubectl.started("exec", "tool", "--", "sh", "-c", "echo begun; exec sleep 54321", **env) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        assert "sleep 54321" in processes(kubectl)
        process.send_signal(signal.SIGKILL)
        eventually(lambda: "sleep 54321" not in processes(kubectl), what="the command ended")


def processes(kubectl: Streams) -> str:
    script = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done 2>/dev/null; true"
    return kubectl("exec", "tool", "--", "sh", "-c", script)


# ── attach and run ───────────────────────────────────────────────────────────────────────────────────────────────────


@over
def test_attach_reaches_the_container_s_own_stdin_and_stdout(kubectl: Streams, websockets: str) -> None:
    command = kubectl.command("attach", "-i", "reader")
    env = kubectl.env | {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": websockets}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for word in ("first", "second"):
            process.stdin.write(f"{word}\n")
            assert process.stdout.readline() == f"got {word}\n"
        process.kill()
        process.communicate()
    assert "got second\n" in kubectl("logs", "reader", "--tail=1")
    assert "no more" not in kubectl("logs", "reader")


def test_attach_to_a_terminal_follows_its_size(kubectl: Streams) -> None:
    with kubectl.terminal("attach", "-it", "shell") as terminal:
        terminal.type("while [ \"$(stty size)\" != '30 100' ]; do :; done; echo size is 'right'\n")
        terminal.expect("size is right")
        terminal.resize(33, 77)
        terminal.type("while [ \"$(stty size)\" != '33 77' ]; do :; done; echo size is 'new'\n")
        terminal.expect("size is new")


def test_run_it_rm_gives_a_shell_and_cleans_up(kubectl: Streams) -> None:
    with kubectl.terminal("run", "gone", "--image=host", "-it", "--rm", "--restart=Never", "--", "sh") as terminal:
        terminal.type("echo I am $HOSTNAME\n")
        terminal.expect("I am gone")
        terminal.type("exit\n")
        assert terminal.wait() == 0
        assert 'pod "gone" deleted' in terminal.seen
    assert "not found" in kubectl.run("get", "pod", "gone").stderr.decode()


def test_run_i_rm_takes_what_is_piped_in(kubectl: Streams) -> None:
    """stdinOnce: the end of the client's input is the end of the container's."""
    words = ("run", "piped", "--image=host", "-i", "--rm", "--restart=Never", "--quiet", "--", "sort")
    assert kubectl(*words, input=b"pear\napple\n").startswith("apple\npear\n")


# ── logs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_logs_in_every_way(kubectl: Streams) -> None:
    assert kubectl("logs", "two", "-c", "one", "--tail=2") == "one 4\none 5\n"
    assert kubectl("logs", "two", "-c", "one", "--limit-bytes=8") == "one 1\non"
    assert kubectl("logs", "two", "-c", "one", "--since=1h").count("\n") == 5
    assert kubectl("logs", "two", "-c", "one", "--since-time=2099-01-01T00:00:00Z") == ""
    stamped = kubectl("logs", "two", "-c", "one", "--timestamps", "--tail=1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}\S+ one 5\n", stamped)
    everything = kubectl("logs", "two", "--all-containers", "--prefix")
    assert "[pod/two/one] one 5\n" in everything
    assert "[pod/two/other] other\n" in everything
    assert "Defaulted container" in kubectl.run("logs", "two").stderr.decode()


def test_logs_previous_are_those_of_the_attempt_before(kubectl: Streams) -> None:
    eventually(lambda: kubectl("logs", "again", "--previous") == "said by again\n")


def test_logs_follow_until_the_container_ends(kubectl: Streams) -> None:
    kubectl(
        "run", "counting", "--image=host", "--restart=Never", "--command", "--", "sh", "-c", "echo 1; sleep 1; echo 2"
    )
    try:
        eventually(lambda: "1\n" in kubectl("logs", "counting"))
        assert kubectl("logs", "-f", "counting") == "1\n2\n"
    finally:
        kubectl("delete", "pod", "counting", "--wait=true", "--grace-period=1")


def test_logs_refuse_what_makes_no_sense(kubectl: Streams) -> None:
    path = f"/api/v1/namespaces/{kubectl.namespace}/pods/two/log?container=one"
    for query, message in (("tailLines=-1", "greater than or equal to 0"), ("limitBytes=0", "greater than 0")):
        assert message in kubectl.run("get", "--raw", f"{path}&{query}").stderr.decode()


# ── cp ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_cp_both_ways(kubectl: Streams, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    there.write_bytes(os.urandom(5 << 20))
    kubectl("cp", str(there), "tool:/tmp/copied")
    kubectl("cp", "tool:/tmp/copied", str(back))
    assert back.read_bytes() == there.read_bytes()


# ── port-forward ─────────────────────────────────────────────────────────────────────────────────────────────────────


def fetch(
    url: str, data: bytes | None = None, method: str = "GET", **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), dict(error.headers)


@over
@pytest.mark.parametrize(("kind", "port"), [("pod", 8080), ("deployment", 8080), ("service", 80)])
def test_port_forward(kubectl: Streams, websockets: str, kind: str, port: int) -> None:
    target = f"pod/{kubectl.pod()}" if kind == "pod" else f"{kind}/web"
    with kubectl.forwarded(target, port, KUBECTL_PORT_FORWARD_WEBSOCKETS=websockets) as url:
        assert fetch(f"{url}/hello")[1].startswith(b"GET /hello 0 ")


def test_port_forward_carries_much_in_parallel(kubectl: Streams) -> None:
    sent = os.urandom(BIG)

    def work(number: int) -> bool:
        if number == 0:
            _, body, headers = fetch(f"{url}/big")
            return len(body) == BIG and headers["X-Sum"] == hashlib.sha256(body).hexdigest()
        if number == 1:
            return hashlib.sha256(sent).hexdigest() in fetch(f"{url}/up", sent, "POST")[1].decode()
        return fetch(f"{url}/{number}")[1].startswith(f"GET /{number} ".encode())

    with kubectl.forwarded("service/web", 80) as url, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(40)))


def test_port_forward_to_a_closed_port_says_so(kubectl: Streams) -> None:
    with kubectl.started("port-forward", "pod/tool", ":4", "--address=127.0.0.1") as process:
        assert process.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found
        with socket.create_connection(("127.0.0.1", int(found[1])), 60) as client:
            client.recv(1)
        assert process.stdout.readline().startswith("Handling connection")
        assert "failed to connect to 127.0.0.1:4 inside the pod" in process.stdout.readline()


def test_connections_into_the_pod_end_with_the_client(kubectl: Streams) -> None:
    name = kubectl.pod()

    def established() -> int:
        table = kubectl("exec", name, "--", "cat", "/proc/net/tcp", "/proc/net/tcp6").splitlines()
        return sum(
            1 for line in table if ":1F90 " in line and line.split()[3] == "01" and "0100007F" in line.split()[2]
        )

    with kubectl.forwarded(f"pod/{name}", 8080) as url:
        clients = [socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 60) for _ in range(3)]
        eventually(lambda: established() == 6, what="both ends of three connections inside the pod")
    for client in clients:
        client.close()
    eventually(lambda: established() == 0, what="no connection is left inside the pod")


# ── proxy ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def proxy(kubectl: Streams) -> Iterator[str]:
    """`kubectl proxy`; its URL up to the namespace."""
    with kubectl.started("proxy", "--port=0") as process:
        assert process.stdout is not None
        found = re.search(r"127\.0\.0\.1:\d+", process.stdout.readline())
        assert found
        yield f"http://{found[0]}/api/v1/namespaces/{kubectl.namespace}"


def test_a_service_s_proxy_takes_every_method(kubectl: Streams) -> None:
    with proxy(kubectl) as url:
        for name in ("web:http", "http:web:80", "web:80"):
            status, body, _ = fetch(f"{url}/services/{name}/proxy/a%2Fb/?x=1&x=2&y=%20")
            assert (status, body.split()[1]) == (200, b"/a%2Fb/?x=1&x=2&y=%20")
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            status, body, _ = fetch(f"{url}/services/web:http/proxy/x", b"some words", method, **{"X-Mine": "kept"})
            assert body.decode().split() == [method, "/x", "10", hashlib.sha256(b"some words").hexdigest(), "kept"]
        status, body, headers = fetch(f"{url}/services/web:http/proxy/x", method="HEAD")
        assert (status, body) == (200, b"")
        assert int(headers["Content-Length"]) > 10
        assert fetch(f"{url}/services/web:http/proxy/broken")[0] == 418
        sent = os.urandom(BIG)
        body = fetch(f"{url}/services/web:http/proxy/up", sent, "POST")[1]
        assert body.decode().split()[2:4] == [str(BIG), hashlib.sha256(sent).hexdigest()]
        _, body, headers = fetch(f"{url}/services/web:http/proxy/big")
        assert headers["X-Sum"] == hashlib.sha256(body).hexdigest()


def test_a_service_s_proxy_reaches_every_ready_endpoint(kubectl: Streams) -> None:
    path = f"/api/v1/namespaces/{kubectl.namespace}/services/http:web:80/proxy/"
    assert kubectl("get", "--raw", path).startswith("GET / 0 ")
    assert "no endpoints available" in kubectl.run("get", "--raw", path.replace(":80", ":http2")).stderr.decode()
    assert "no service port 81 found" in kubectl.run("get", "--raw", path.replace(":80", ":81")).stderr.decode()


def test_a_pod_s_proxy_finds_its_port(kubectl: Streams) -> None:
    name = kubectl.pod()
    root = f"/api/v1/namespaces/{kubectl.namespace}/pods"
    for who in (name, f"{name}:8080", f"{name}:http", f"http:{name}:8080"):
        assert kubectl("get", "--raw", f"{root}/{who}/proxy/from").startswith("GET /from 0 ")
    refused = kubectl.run("get", "--raw", f"{root}/{name}:4/proxy/").stderr.decode()
    assert "error trying to reach service" in refused


def test_a_bare_proxy_is_sent_to_its_slash_and_redirects_stay_inside(kubectl: Streams) -> None:
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    opener = urllib.request.build_opener(Stay)
    with proxy(kubectl) as url:
        for method in ("GET", "HEAD"):
            with pytest.raises(urllib.error.HTTPError) as moved:
                opener.open(urllib.request.Request(f"{url}/services/web:http/proxy?q=1", method=method))
            assert moved.value.code == 301
            assert moved.value.headers["Location"].endswith("/services/web:http/proxy/?q=1")
            moved.value.close()
        with pytest.raises(urllib.error.HTTPError) as moved:
            opener.open(f"{url}/services/web:http/proxy/moved")
        assert moved.value.headers["Location"].endswith("/services/web:http/proxy/elsewhere?a=b")
        assert moved.value.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
        moved.value.close()


def test_an_upgrade_passes_through_to_the_pod(kubectl: Streams) -> None:
    name = kubectl.pod()
    with proxy(kubectl) as url:
        host, _, path = url.removeprefix("http://").partition("/")
        address, _, port = host.partition(":")
        with socket.create_connection((address, int(port)), 60) as client, client.makefile("rwb") as file:
            lines = [f"GET /{path}/pods/{name}:http/proxy/ws HTTP/1.1", f"Host: {host}"]
            lines += ["Connection: Upgrade", "Upgrade: echo", "", ""]
            file.write("\r\n".join(lines).encode())
            file.flush()
            assert file.readline().startswith(b"HTTP/1.1 101 ")
            while file.readline() != b"\r\n":
                pass
            for word in (b"there and back\n", b"again\n"):
                file.write(word)
                file.flush()
                assert file.readline() == word


def test_a_node_s_proxy_is_its_agent(kubectl: Streams) -> None:
    node = kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    assert kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/healthz") == "ok"
    assert (
        "error trying to reach service" in kubectl.run("get", "--raw", f"/api/v1/nodes/{node}:4/proxy/").stderr.decode()
    )

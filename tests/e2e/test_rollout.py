"""A rollout under load: no client is refused, though the servers end at once when told to."""

from __future__ import annotations

import json
import time

import pytest

from support.box import eventually

SERVER = r"""
import http.server, os, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # no drain, no goodbye
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ["HOSTNAME"].encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
Server(("", 8080), Answer).serve_forever()
"""

LOAD = r"""
import collections, http.client, json, os, sys, threading, time
seen, failed = collections.Counter(), []
def load():
    while not os.path.exists("/tmp/stop"):
        try:
            c = http.client.HTTPConnection(sys.argv[1], 80, timeout=60)
            c.request("GET", "/"); name = c.getresponse().read().decode(); c.close()
            open("/tmp/seen-" + name, "a").close(); seen[name] += 1
        except Exception as error:
            failed.append(repr(error))
        time.sleep(0.002)
threads = [threading.Thread(target=load) for _ in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
print(json.dumps({"seen": seen, "failed": failed}))
"""


def manifest() -> str:
    container = {
        "name": "web",
        "image": "host",
        "command": ["python3", "-c", SERVER],
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}
    spec = {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    client = {"containers": [{"name": "c", "image": "host", "command": ["sleep", "1000000"]}]}
    items = [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
        },
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"}, "spec": client},
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


@pytest.fixture
def rolling(three_nodes, namespace):  # type: ignore[no-untyped-def]
    def kubectl(*words: str, **options) -> str:  # type: ignore[no-untyped-def]
        return three_nodes.kubectl("-n", namespace, *words, **options)

    kubectl("apply", "-f", "-", input=manifest())
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
    return kubectl


def test_a_rollout_under_load_fails_no_request(rolling, three_nodes, namespace) -> None:  # type: ignore[no-untyped-def]
    """Two rollouts of three servers that end at once on SIGTERM: every request is answered, by old pods and new."""
    ip = rolling("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
    words = ["-n", namespace, "exec", "client", "--", "python3", "-c", LOAD, ip]
    load = three_nodes.start_kubectl(*words)

    def all_asked() -> bool:
        """Whether every pod has had a request: it could be gone before its first."""
        names = rolling("get", "pods", "-l", "app=web", "-o", "name").split()
        seen = rolling("exec", "client", "--", "ls", "/tmp").split()
        return {name.replace("pod/", "seen-") for name in names} <= set(seen)

    eventually(all_asked, what="load")
    for _ in range(2):
        rolling("rollout", "restart", "deployment/web")
        rolling("rollout", "status", "deployment/web", "--timeout=120s")
        eventually(all_asked, what="load on the new pods")
    eventually(
        lambda: len(rolling("get", "pods", "-l", "app=web", "-o", "name").split()) == 3, what="the old pods are gone"
    )
    rolling("exec", "client", "--", "touch", "/tmp/stop")
    out, error = load.communicate(timeout=120)
    assert load.returncode == 0, error
    found = json.loads(out)
    assert found["failed"] == []
    assert len(found["seen"]) == 9
    assert sum(found["seen"].values()) > 500


def test_nodes_report_while_endpoints_terminate_and_are_silent_otherwise(rolling, three_nodes) -> None:  # type: ignore[no-untyped-def]
    """After a rollout each node's Lease holds a revision; Services that come and go don't change it."""

    def leases() -> dict[str, str]:
        found = three_nodes.get("-n", "kube-node-lease", "leases")["items"]
        return {
            lease["metadata"]["name"]: lease["metadata"]["annotations"]["kubesvc.dev/programmed-slices"]
            for lease in found
        }

    rolling("delete", "pods", "-l", "app=web")
    rolling("rollout", "status", "deployment/web", "--timeout=60s")

    def calm() -> bool:
        """No endpoint terminates, here or in what other tests left, and nobody is about to say so."""
        slices = three_nodes.get("endpointslices", "--all-namespaces")["items"]
        told = leases()
        time.sleep(1)  # ten times as long as a report may be due
        going = any(e["conditions"].get("terminating") for s in slices for e in s.get("endpoints") or ())
        return not going and leases() == told

    eventually(calm, what="calm")
    before = leases()
    assert set(before) == {"node1", "node2", "node3"}
    rolling("scale", "deployment/web", "--replicas=4")
    rolling("rollout", "status", "deployment/web", "--timeout=60s")
    assert leases() == before

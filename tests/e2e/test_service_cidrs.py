"""A range of cluster IPs that comes while a box runs: Services get addresses of it, which answer on every node."""

from __future__ import annotations

import json
import subprocess

from support.box import BoxUnderTest, eventually

RANGE, ADDRESS = "10.107.0.0/24", "10.107.0.10"
ASK = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"
SERVE = """
import http.server
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("", 8080), Answer).serve_forever()
"""


def _pod(name: str, node: str, command: list[str]) -> dict:
    container = {"name": "c", "image": "host", "command": command}
    if name == "server":
        container["readinessProbe"] = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]},
    }


def _node(box: BoxUnderTest, node: str, *words: str) -> str:
    command = ["ip", "netns", "exec", box.namespace(node), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout


def test_addresses_of_a_range_that_came_later_answer_until_it_is_gone(
    three_nodes: BoxUnderTest, namespace: str
) -> None:
    """From a pod and from a node itself; the range stays as long as a Service has an address of it."""
    box = three_nodes

    def kubectl(*words: str, **options) -> str:
        return box.kubectl("-n", namespace, *words, **options)

    def apply(*objects: dict) -> None:
        kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "later"},
        "spec": {"clusterIP": ADDRESS, "selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    refused = kubectl("create", "-f", "-", input=json.dumps(service), check=False)
    assert f"failed to allocate IP {ADDRESS}: the provided IP ({ADDRESS}) is not in the valid range" in refused
    cidr = {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "later"}}
    apply(cidr | {"spec": {"cidrs": [RANGE]}})
    try:
        apply(service, _pod("server", "node1", ["python3", "-c", SERVE]), _pod("client", "node2", ["sleep", "1000000"]))
        kubectl("wait", "--for=condition=Ready", "pods", "--all", "--timeout=60s")
        from_pod = ("exec", "client", "--", "python3", "-c", ASK, f"http://{ADDRESS}")
        eventually(lambda: kubectl(*from_pod, check=False).strip() == "ok", 60, "the answer in a pod")
        by_name = ("exec", "client", "--", "python3", "-c", ASK, f"http://later.{namespace}.svc.cluster.local")
        eventually(lambda: kubectl(*by_name).strip() == "ok", what="the answer by its name")
        for node in ("node1", "node2", "node3"):
            routes, asks = ("ip", "route", "show", "proto", "155"), ("python3", "-c", ASK, f"http://{ADDRESS}")
            eventually(lambda node=node, w=routes: RANGE in _node(box, node, *w), what=f"{node}'s route")
            eventually(lambda node=node, w=asks: _node(box, node, *w).strip() == "ok", what=f"the answer on {node}")
        kubectl("delete", "servicecidr", "later", "--wait=false")
        assert box.get("servicecidr", "later")["metadata"]["deletionTimestamp"], "an address of it is in use"
        assert kubectl(*from_pod).strip() == "ok"
    finally:
        kubectl("delete", "service", "later", "--ignore-not-found")
        kubectl("delete", "servicecidr", "later", "--ignore-not-found", "--timeout=60s")
    for node in ("node1", "node2", "node3"):
        for words in (("nft", "list", "table", "inet", "kubesvc"), ("ip", "route")):
            eventually(
                lambda node=node, w=words: "10.107" not in _node(box, node, *w), what=f"gone from {node} {words}"
            )

"""Certificates that live for seconds: they are renewed while everything runs, and nobody notices."""

from __future__ import annotations

import base64
import ssl
from datetime import UTC, datetime

import pytest
import yaml
from cryptography import x509

from support.box import BoxUnderTest, eventually, fresh_box

LIFE = 40  # seconds
WEB = """
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: NAME}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: host
    command: [python3, -S, -m, http.server, "8080"]
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: to-NAME}
spec: {selector: {app: NAME}, ports: [{port: 80, targetPort: 8080}]}
"""


@pytest.fixture
def box(tmp_path):
    with fresh_box(tmp_path / "box") as fresh:
        yield fresh


def processes(box: BoxUnderTest) -> dict[str, tuple[int, int]]:
    """Each process -> its pid and how often it was restarted."""
    return {p["name"]: (p["pid"], p.get("restarts", 0)) for p in box.status()["processes"]}


def presented(box: BoxUnderTest) -> dict[str, x509.Certificate]:
    """What the API server presents to a new connection, and every client's certificate as its file has it."""
    server = yaml.safe_load(box.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    port, pki = int(server.rpartition(":")[2]), box.directory / "pki"
    served = ssl.get_server_certificate(("127.0.0.1", port), ca_certs=str(pki / "ca.crt"))
    found = {"API server": x509.load_pem_x509_certificate(served.encode())}
    admin = yaml.safe_load(box.kubeconfig.read_text())["users"][0]["user"]["client-certificate-data"]
    found["admin"] = x509.load_pem_x509_certificate(base64.b64decode(admin))
    names = ("apiserver-node-client.crt", "node1-serving.crt", "node1-proxy.crt", "node1-dns.crt", "node1-node.pem")
    return found | {name: x509.load_pem_x509_certificate((pki / name).read_bytes()) for name in names}


def serve(box: BoxUnderTest, name: str) -> None:
    """A pod behind a Service answers: the node agent, the proxy and the DNS server all work."""
    box.kubectl("apply", "-f", "-", input=WEB.replace("NAME", name))
    box.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")
    asks = ("exec", name, "--", "python3", "-S", "-c",
            f"import urllib.request as u; print(u.urlopen('http://to-{name}', timeout=5).status)")  # fmt: skip
    eventually(lambda: box.kubectl(*asks).strip() == "200", what=f"{name} answers by its name")


def test_every_certificate_is_renewed_and_nothing_restarts(box: BoxUnderTest) -> None:
    box.up("--certificate-lifetime", str(LIFE))
    first, before = presented(box), processes(box)
    serve(box, "early")
    watching = box.start_kubectl("get", "configmaps", "--watch", "-o", "name")
    last = max(certificate.not_valid_after_utc for certificate in first.values())

    def replaced() -> bool:
        now = presented(box)
        return datetime.now(UTC) > last and all(now[name].serial_number != first[name].serial_number for name in now)

    eventually(replaced, 10 * LIFE, "every certificate is another one, and the first have expired")
    serve(box, "late")
    assert "root" in box.kubectl("exec", "late", "--", "id", "-un")
    assert processes(box) == before
    identity = (box.directory / "pki" / "node1-node.pem").read_bytes()  # first: another may be asked for meanwhile
    requests = box.get("csr")["items"]
    assert {r["spec"]["username"] for r in requests} == {"system:node:node1"}
    told = [r.get("status", {}) for r in requests]  # nothing yet to one that has just been made
    assert {c["reason"] for status in told for c in status.get("conditions", ())} == {"AutoApproved"}
    issued = {base64.b64decode(status["certificate"]) for status in told if status.get("certificate")}
    assert any(identity.startswith(certificate) for certificate in issued)
    box.kubectl("create", "configmap", "late")
    assert watching.stdout is not None
    for line in watching.stdout:  # opened with the first certificates, it goes on
        if line.strip() == "configmap/late":
            break
    else:
        raise AssertionError("the watch ended")
    watching.terminate()
    watching.communicate()

"""kubectl certificate approve and deny, and what `kubectl get csr` shows."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from support.certificates import request_for
from support.controlled import controlled_server
from support.kubectl import Kubectl

SIGNER = "kubernetes.io/kube-apiserver-client"


@pytest.fixture
def kubectl(binary: Path, tmp_path: Path) -> Iterator[Kubectl]:
    """A cluster with controllers and an authority."""
    with controlled_server(tmp_path) as thread:
        yield Kubectl(binary, thread.kubeconfig)


def ask(kubectl: Kubectl, name: str, **more: object) -> None:
    spec = {"request": request_for("alice", "devs"), "usages": ["client auth"], "signerName": SIGNER, **more}
    tree = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name}}
    kubectl("create", "-f", "-", stdin=json.dumps({**tree, "spec": spec}))


def test_requests_are_approved_and_denied(kubectl: Kubectl) -> None:
    good, bad = "good", "bad"
    ask(kubectl, good, expirationSeconds=3600)
    ask(kubectl, bad)
    heading, row = kubectl("get", "csr", good).splitlines()
    assert heading.split() == ["NAME", "AGE", "SIGNERNAME", "REQUESTOR", "REQUESTEDDURATION", "CONDITION"]
    assert row.split()[2:] == [SIGNER, "admin", "60m", "Pending"]
    assert "approved" in kubectl("certificate", "approve", good)
    assert "denied" in kubectl("certificate", "deny", bad)
    kubectl("wait", f"csr/{good}", "--for=jsonpath={.status.certificate}", "--timeout=60s")
    assert kubectl("get", "csr", good).split()[-1] == "Approved,Issued"
    assert kubectl("get", "csr", bad).split()[-1] == "Denied"
    pem = base64.b64decode(kubectl.json("get", "csr", good)["status"]["certificate"])
    assert x509.load_pem_x509_certificate(pem).subject.rfc4514_string() == "CN=alice,O=devs"
    assert "is already Denied" in (said := kubectl.fails("certificate", "approve", bad)) or "exclusive" in said

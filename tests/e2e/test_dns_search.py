"""A pod's search path on a real box: completed by its node's server."""

from __future__ import annotations

import json
import re

import pytest

from support.box import fresh_box

LOOK_UP = r"""
import socket, sys
for _ in range(20):
    found = {a[4][0] for a in socket.getaddrinfo(sys.argv[1], 443, type=socket.SOCK_STREAM)}
print(*sorted(found))
"""


def counted(box, pattern: str) -> int:
    """The sum of node1's DNS metrics whose lines match."""
    address = box.get("node", "node1")["status"]["addresses"][0]["address"]
    page = box.inside("node1", "curl", "-sf", "--max-time", "10", f"http://{address}:9153/metrics")
    return sum(int(line.rsplit(" ", 1)[1]) for line in page.splitlines() if re.match(pattern, line))


@pytest.fixture
def box(tmp_path):
    """A box of its own: questions of other tests' pods would be counted too."""
    with fresh_box(tmp_path / "box") as fresh:
        fresh.up()
        yield fresh


def test_a_name_of_another_namespace_costs_one_question_a_family(box):
    """No NXDOMAIN on the way: 20 look-ups of a whole name and of a short one are 20 questions for A each."""
    box.kubectl("create", "namespace", "elsewhere")
    container = {"name": "c", "image": "host", "command": ["sleep", "1000000"]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client"},
        "spec": {"nodeName": "node1", "containers": [container], "terminationGracePeriodSeconds": 0},
    }
    box.kubectl("-n", "elsewhere", "apply", "-f", "-", input=json.dumps(pod))
    box.kubectl("-n", "elsewhere", "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
    missing = r'coredns_dns_responses_total.*rcode="NXDOMAIN"'
    questions = r'coredns_dns_requests_total.*zone="cluster\.local\.".*type="A"'
    for name in ("kubernetes.default", "kubernetes.default.svc.cluster.local"):
        before = counted(box, missing), counted(box, questions)
        found = box.kubectl("-n", "elsewhere", "exec", "client", "--", "python3", "-c", LOOK_UP, name)
        assert found.split() == ["10.96.0.1"]
        after = counted(box, missing), counted(box, questions)
        assert (after[0] - before[0], after[1] - before[1]) == (0, 20), name

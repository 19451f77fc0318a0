"""`kubesvc loadbalancer` as a process against an API server that runs alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from kubesvc.api.errors import NotFound
from kubesvc.api.meta import JSON
from kubesvc.api.registry import BGP_PEER, IP_ADDRESS_POOL, LEASE, SERVICE
from kubesvc.cli.loadbalancer import loadbalancer
from support.apiserver import ServerThread, tls_server
from support.box import eventually
from support.kubectl import BINARIES, Kubectl

PROGRAM = "from kubesvc.cli.main import main; main()"
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerThread]:
    with tls_server(tmp_path) as running:
        yield running


@contextmanager
def controller(server: ServerThread, *words: str) -> Iterator[None]:
    command = [sys.executable, "-c", PROGRAM, "loadbalancer", "--kubeconfig", str(server.kubeconfig), *words]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        yield
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=60)
        assert running.returncode == 0, said
        assert "Traceback" not in said, said
    finally:
        if running.poll() is None:
            running.kill()
            running.communicate()


def holder(server: ServerThread) -> str:
    try:
        lease = server.run(server.session().get(LEASE, "kube-system", "kubesvc-loadbalancer"))
    except NotFound:
        return ""
    return lease["spec"].get("holderIdentity") or ""


ELECT = ("--pool", "198.51.100.0/28", "--leader-elect", "--leader-elect-lease-duration", "6",
         "--leader-elect-renew-deadline", "5", "--leader-elect-retry-period", "0.2")  # fmt: skip


def test_of_two_controllers_one_leads_and_the_other_takes_over(server: ServerThread) -> None:
    """A leader that is killed is followed after the Lease's duration, one that ends in order at once; no address
    changes."""
    command = [sys.executable, "-c", PROGRAM, "loadbalancer", "--kubeconfig", str(server.kubeconfig), *ELECT]
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    try:
        leader = str(eventually(lambda: holder(server), 60, "the first leads"))
        create(server, "one")
        before = eventually(lambda: address(server, "one"), 60, "served")
        with controller(server, *ELECT):
            first.kill()
            first.wait()
            assert holder(server) == leader
            create(server, "two")
            second = str(eventually(lambda: holder(server) not in ("", leader) and holder(server), 60, "taken over"))
            eventually(lambda: address(server, "two") not in ("", before), 60, "the second serves")
            assert address(server, "one") == before
        assert holder(server) == ""
        assert second != leader
        transitions = server.run(server.session().get(LEASE, "kube-system", "kubesvc-loadbalancer"))["spec"]
        assert transitions["leaseTransitions"] == 1
    finally:
        first.kill()
        first.wait()


def create(server: ServerThread, name: str, **more: object) -> None:
    tree: JSON = {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}], **more},
    }
    server.run(server.session().create(SERVICE, tree))


def address(server: ServerThread, name: str) -> str:
    found = server.run(server.session().get(SERVICE, "default", name))
    return ",".join(i["ip"] for i in found["status"]["loadBalancer"].get("ingress", ()))


def test_it_serves_from_pools_and_says_why_it_can_not(server: ServerThread) -> None:
    """With kubectl: the condition and the event of a Service that waits are in `describe`."""
    spec = {"addresses": ["192.0.2.1-192.0.2.1"]}
    with controller(server, "--provider", "pool"):
        create(server, "first")
        eventually(lambda: "NoPool" in describe(server, "first"), 60, "it says what is missing")
        server.run(server.session().create(IP_ADDRESS_POOL, {"metadata": {"name": "small"}, "spec": spec}))
        eventually(lambda: address(server, "first") == "192.0.2.1", 60, "served")
        create(server, "second")
        eventually(
            lambda: "PoolExhausted: the pool small (192.0.2.1-192.0.2.1)" in describe(server, "second"), 60, "why"
        )
        eventually(lambda: "192.0.2.1-192.0.2.1" in status(server), 60, "the pool is shown")
        shown = status(server)
        assert "A 192.0.2.1" in shown
        assert "PoolExhausted" in shown
    create(server, "third")
    with controller(server, "--pool", "198.51.100.0/30"):
        eventually(lambda: address(server, "third") != "", 60, "served")
        assert address(server, "first") == "192.0.2.1"


def test_what_can_not_be_is_refused_by_the_api(server: ServerThread) -> None:
    """In kubectl's words, naming the field."""
    pool: JSON = {"metadata": {"name": "p"}, "spec": {"addresses": ["192.0.2.9-192.0.2.1"]}}
    peer: JSON = {"metadata": {"name": "r"}, "spec": {"myASN": 0, "peerASN": 64513, "peerAddress": "here"}}
    for kind, tree, said in (
        (IP_ADDRESS_POOL, pool, "spec.addresses[0]: Invalid value"),
        (BGP_PEER, peer, "spec.peerAddress: Invalid value"),
    ):
        with pytest.raises(Exception, match=r"Invalid value") as refused:
            server.run(server.session().create(kind, tree))
        assert said in str(refused.value)


def describe(server: ServerThread, name: str) -> str:
    return Kubectl(BINARIES[0], server.kubeconfig).run("describe", "service", name).stdout


def status(server: ServerThread) -> str:
    shown = CliRunner().invoke(loadbalancer, ["status", "--kubeconfig", str(server.kubeconfig)])
    assert shown.exit_code == 0, shown.output
    return shown.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--kubeconfig FILE is missing"),
        (("--kubeconfig", "/nonexistent"), "can't be read as a kubeconfig"),
        (("--kubeconfig", "x", "--pool", "nine"), "neither a network"),
        (("--kubeconfig", "x", "--provider", "cumulus"), "'cumulus' is not one of 'aws', 'azure', 'gcp', 'pool'"),
        (("announce",), "--kubeconfig FILE is missing"),
    ],
)
def test_what_it_is_told_wrongly_is_said(words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    shown = CliRunner().invoke(loadbalancer, list(words))
    assert shown.exit_code != 0
    assert said in shown.output

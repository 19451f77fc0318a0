"""kubectl logs and exec through the API server to a node's agent."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubesvc.api.meta import JSON
from kubesvc.api.registry import NODE, POD
from kubesvc.client.session import Session
from support.agent import Agent, agent
from support.apiserver import ServerThread
from support.kubectl import Kubectl


async def add_node(session: Session, name: str, port: int) -> None:
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    await session.create(NODE, {"metadata": {"name": name}})
    await session.patch(NODE, "", name, {"status": status}, subresource="status")


async def add_pod(session: Session, name: str, node: str, state: JSON, *containers: str) -> None:
    spec = {"nodeName": node, "containers": [{"name": c, "image": "host"} for c in containers]}
    await session.create(POD, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})
    common = {"state": state, "ready": False, "restartCount": 0, "image": "host", "imageID": ""}
    phase = "Running" if "running" in state else "Pending"
    status = {"phase": phase, "containerStatuses": [{"name": c, **common} for c in containers]}
    await session.patch(POD, "default", name, {"status": status}, subresource="status")


@pytest.fixture(scope="module")
def node(server: ServerThread) -> Iterator[Agent]:
    """An agent on 127.0.0.1, the Node that says so, one that nobody answers for, and pods in every state."""
    server.authority.serving("node", "127.0.0.1")
    context = agent(server.directory)

    async def start() -> Agent:
        found = await context.__aenter__()
        session = server.session()
        await add_node(session, "n1", found.port)
        await add_node(session, "lost", 1)
        running, waiting = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "ContainerCreating"
        await add_pod(session, "running", "n1", running, "app")
        await add_pod(session, "two", "n1", running, "app", "side")
        await add_pod(session, "on-lost", "lost", running, "app")
        await add_pod(session, "creating", "n1", {"waiting": {"reason": waiting}}, "app")
        await add_pod(session, "pulling", "n1", {"waiting": {"reason": "ErrImagePull"}}, "app")
        return found

    async def stop() -> None:
        await context.__aexit__(None, None, None)

    yield server.run(start())
    server.run(stop())


@pytest.fixture
def kubectl(binary: Path, server: ServerThread, node: Agent) -> Kubectl:
    return Kubectl(binary, server.kubeconfig)


def test_logs(kubectl: Kubectl, node: Agent) -> None:
    assert kubectl("logs", "running") == "one\ntwo\n"
    kubectl("logs", "running", "--tail=5", "--since=60s", "--timestamps", "--limit-bytes=1000")
    assert node.asked[-1].startswith("/containerLogs/default/running/app?")
    for passed in ("tailLines=5", "sinceSeconds=60", "timestamps=true", "limitBytes=1000"):
        assert passed in node.asked[-1]


def test_logs_are_followed_as_they_come(kubectl: Kubectl, node: Agent, server: ServerThread) -> None:
    node.more.clear()
    following = kubectl.start("logs", "-f", "running")
    assert following.stdout is not None
    assert [following.stdout.readline() for _ in range(2)] == ["one\n", "two\n"]
    server.loop.call_soon_threadsafe(node.more.set)
    rest, _ = following.communicate(timeout=60)
    assert (rest, following.returncode) == ("three\n", 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["creating"], 'container "app" in pod "creating" is waiting to start: ContainerCreating'),
        (["pulling"], 'container "app" in pod "pulling" is waiting to start: image can\'t be pulled'),
        (["running", "-c", "no"], "container no is not valid for pod running"),
        (["running", "--previous"], 'previous terminated container "app" in pod "running" not found'),
        (["nobody"], 'pods "nobody" not found'),
    ],
    ids=["creating", "pulling", "no such container", "no previous one", "no such pod"],
)
def test_logs_that_cannot_be_had(kubectl: Kubectl, arguments: list[str], message: str) -> None:
    assert message in kubectl.fails("logs", *arguments)


def test_exec_gives_both_outputs(kubectl: Kubectl, node: Agent) -> None:
    done = kubectl.run("exec", "running", "--", "echo", "a b", "c")
    assert (done.stdout, done.stderr) == ("echo a b c\n", "done\n")
    assert node.asked[-1].startswith("/exec/default/running/app?command=echo&command=a+b&command=c")


def test_exec_passes_the_exit_code(kubectl: Kubectl) -> None:
    done = kubectl.run("exec", "running", "--", "exit", "3", check=False)
    assert done.returncode == 3
    assert "command terminated with exit code 3" in done.stderr


def test_exec_passes_stdin(kubectl: Kubectl) -> None:
    sent = "line\n" * 20_000
    assert kubectl.run("exec", "-i", "running", "--", "cat", stdin=sent).stdout == sent


def test_exec_chooses_the_first_container_and_takes_another(kubectl: Kubectl, node: Agent) -> None:
    kubectl("exec", "two", "--", "true")
    assert "/exec/default/two/app?" in node.asked[-1]
    kubectl("exec", "two", "-c", "side", "--", "true")
    assert "/exec/default/two/side?" in node.asked[-1]


@pytest.mark.parametrize(
    ("pod", "command", "message"),
    [
        ("creating", "true", 'container "app" in pod "creating" is waiting to start: ContainerCreating'),
        ("nobody", "true", 'pods "nobody" not found'),
    ],
)
def test_exec_that_cannot_be(kubectl: Kubectl, pod: str, command: str, message: str) -> None:
    assert message in kubectl.fails("exec", pod, "--", command)


def test_an_agent_s_refusal_reaches_the_terminal(kubectl: Kubectl) -> None:
    """kubectl tries a WebSocket, then SPDY; both are refused, and the last refusal is what is shown."""
    assert "the agent refuses this" in kubectl.fails("exec", "running", "--", "refuse")


def test_a_node_that_does_not_answer_is_named(kubectl: Kubectl) -> None:
    assert "error dialing backend: node lost" in kubectl.fails("logs", "on-lost")
    assert "error dialing backend: node lost" in kubectl.fails("exec", "on-lost", "--", "true")


def test_a_caller_without_a_certificate_is_not_let_in(server: ServerThread, node: Agent) -> None:
    """The agent of these tests asks for a certificate, so what came through had the server's."""
    done = subprocess.run(
        ["curl", "--silent", "--cacert", str(server.directory / "ca.crt"), f"https://127.0.0.1:{node.port}/"],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0

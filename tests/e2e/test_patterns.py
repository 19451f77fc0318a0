"""The manifests of examples/patterns: each is applied as it is, and does what it is known for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.box import eventually

PATTERNS = Path(__file__).parents[2] / "examples/patterns"
CLIENT = ["--image=host", "--restart=Never", "--command", "--", "sleep", "1000000"]
ASK = """
import sys, urllib.request
for _ in range(int(sys.argv[2])): print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode().strip())
"""

Kubectl = Callable[..., str]


@pytest.fixture
def kubectl(three_nodes, namespace) -> Kubectl:
    """kubectl in a namespace of the test's own, with a pod to ask from."""

    def call(*words: str, **options) -> str:
        return three_nodes.kubectl("-n", namespace, *words, **options)

    call("run", "client", *CLIENT)
    return call


def apply(kubectl: Kubectl, name: str, *ready: str, **changes: str) -> None:
    """Apply a pattern, with words of it changed, and wait for the rollouts in `ready`."""
    text = (PATTERNS / f"{name}.yaml").read_text()
    for word, value in changes.items():
        text = text.replace(word, value)
    kubectl("apply", "-f", "-", input=text)
    for rollout in ready:
        kubectl("rollout", "status", rollout, "--timeout=120s")
    kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=120s")


def ask(kubectl: Kubectl, url: str, times: int = 1) -> list[str]:
    return kubectl("exec", "client", "--", "python3", "-c", ASK, url, str(times)).splitlines()


def answers(kubectl: Kubectl, url: str, *expected: str, times: int = 20) -> None:
    """Of `times` answers, after a while, every one is of `expected`, and each of those is there."""
    wanted = set(expected)
    eventually(lambda: set(ask(kubectl, url, times)) == wanted, what=f"{url} answers {expected}")


def test_guestbook(kubectl: Kubectl) -> None:
    apply(kubectl, "guestbook", "deployment/store", "deployment/frontend")
    answers(kubectl, "http://frontend/", "", times=60)  # each of the frontends has its store
    ask(kubectl, "http://frontend/first")
    assert ask(kubectl, "http://frontend/second") == ["first,second"]
    answers(kubectl, "http://frontend/", "first,second")
    kubectl("scale", "deployment/frontend", "--replicas=5")
    kubectl("rollout", "status", "deployment/frontend", "--timeout=120s")
    answers(kubectl, "http://frontend/", "first,second")


def test_stateful_set_tutorial(kubectl: Kubectl) -> None:
    apply(kubectl, "statefulset", "statefulset/web")
    for name in ("web-0", "web-1"):
        answers(kubectl, f"http://{name}.nginx/", name, times=1)
    uid = kubectl("get", "pod", "web-0", "-o", "jsonpath={.metadata.uid}")
    kubectl("exec", "web-0", "--", "sh", "-c", "echo kept > /data/index.html")
    kubectl("delete", "pod", "web-0")
    eventually(lambda: kubectl("get", "pod", "web-0", "-o", "jsonpath={.metadata.uid}") != uid)
    kubectl("rollout", "status", "statefulset/web", "--timeout=120s")
    answers(kubectl, "http://web-0.nginx/", "kept", times=1)
    kubectl("scale", "statefulset/web", "--replicas=3")
    answers(kubectl, "http://web-2.nginx/", "web-2", times=1)


def test_blue_green(kubectl: Kubectl) -> None:
    apply(kubectl, "blue-green", "deployment/blue", "deployment/green")
    answers(kubectl, "http://shop/", "blue")
    kubectl("patch", "service", "shop", "-p", '{"spec": {"selector": {"version": "green"}}}')
    answers(kubectl, "http://shop/", "green")


def test_canary_by_labels(kubectl: Kubectl) -> None:
    apply(kubectl, "canary", "deployment/stable", "deployment/canary")
    answers(kubectl, "http://shop/", "stable", "canary", times=60)
    kubectl("scale", "deployment/canary", "--replicas=0")
    answers(kubectl, "http://shop/", "stable")


def test_sidecar(kubectl: Kubectl) -> None:
    apply(kubectl, "sidecar", "deployment/talker")
    eventually(lambda: "logging" in ask(kubectl, "http://logs/app.log"))
    names = kubectl(
        "get", "pods", "-l", "app=talker", "-o", "jsonpath={.items[*].status.initContainerStatuses[*].name}"
    )
    assert names == "logshipper"


def test_headless_discovery(kubectl: Kubectl) -> None:
    apply(kubectl, "headless", "statefulset/peer")
    found = {tuple(kubectl("logs", f"peer-{number}").split()[1:]) for number in range(3)}
    ips = kubectl("get", "pods", "-l", "app=peer", "-o", "jsonpath={.items[*].status.podIP}").split()
    assert found == {tuple(sorted(ips))}


def test_init_containers_wait_for_services(kubectl: Kubectl) -> None:
    apply(kubectl, "init-containers")
    waiting = "jsonpath={.status.initContainerStatuses[0].state.running.startedAt}"
    eventually(lambda: kubectl("get", "pod", "myapp", "-o", waiting))
    assert kubectl("get", "pod", "myapp", "-o", "jsonpath={.status.phase}") == "Pending"
    for name in ("myservice", "mydb"):
        kubectl("create", "service", "clusterip", name, "--tcp=80:9376")
    kubectl("wait", "--for=condition=Ready", "pod/myapp", "--timeout=120s")
    eventually(lambda: kubectl("logs", "myapp") == "The app is running!\n")


def test_configuration(kubectl: Kubectl) -> None:
    apply(kubectl, "configuration")
    kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/app", "--timeout=120s")
    assert kubectl("logs", "app") == 'hello opensesame size = 10 zone="east" 500 app\n'


def test_work_queue(kubectl: Kubectl) -> None:
    apply(kubectl, "work-queue")
    kubectl("wait", "--for=condition=Complete", "job/workers", "--timeout=120s")
    done = kubectl("logs", "-l", "app=worker", "--tail=-1").splitlines()
    assert sorted(done) == [f"done item{number}" for number in range(8)]


def test_node_agent(kubectl: Kubectl) -> None:
    apply(kubectl, "node-agent", "daemonset/agent")
    node = kubectl("get", "pod", "client", "-o", "jsonpath={.spec.nodeName}")
    answers(kubectl, "http://agent/", node)


def test_ambassador(kubectl: Kubectl) -> None:
    apply(kubectl, "ambassador", "deployment/app")
    answers(kubectl, "http://app/", "by web: application", times=2)
    answers(kubectl, "http://app:8081/", "by admin: application", times=2)
    seen = kubectl(
        "exec", "deployment/app", "-c", "ambassador", "--", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
    )
    assert "http.server 9000" in seen


def test_outside(kubectl: Kubectl, namespace: str) -> None:
    serve = "echo elsewhere > /srv/index.html; exec python3 -m http.server 8080 --directory /srv"
    kubectl("run", "elsewhere", "--image=host", "--restart=Never", "--command", "--", "sh", "-c", serve)
    kubectl("wait", "--for=condition=Ready", "pod/elsewhere", "--timeout=120s")
    address = kubectl("get", "pod", "elsewhere", "-o", "jsonpath={.status.podIP}")
    apply(kubectl, "outside", ADDRESS=address, NAMESPACE=namespace)
    for name in ("legacy", "database"):
        eventually(lambda name=name: ask(kubectl, f"http://{name}/") == ["elsewhere"], what=name)  # type: ignore[misc]


def test_every_pattern_has_its_test() -> None:
    tests = Path(__file__).read_text()
    for path in PATTERNS.glob("*.yaml"):
        assert f'apply(kubectl, "{path.stem}"' in tests
        assert f"`{path.name}`" in (PATTERNS / "README.md").read_text()

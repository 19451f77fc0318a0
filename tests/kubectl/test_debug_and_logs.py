"""`kubectl debug` and every way of asking for logs, with each kubectl, on real pods."""

from __future__ import annotations

import json

import pytest

from support.box import eventually, kubectls

PODS = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: told}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: setup, image: host, command: [echo, set up]}
  containers:
  - name: main
    image: host
    command: [sh, -c, "echo main first; sleep 1.1; echo main second; exec sleep 1000"]
  - name: side
    image: host
    command: [sh, -c, "echo side only; exec sleep 1000"]
---
apiVersion: v1
kind: Pod
metadata: {name: again, labels: {app: told}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: host
    command: [sh, -c, "[ -e /keep/ran ] && echo second run && exec sleep 1000; touch /keep/ran; echo first run; exit 3"]
    volumeMounts: [{name: keep, mountPath: /keep}]
  volumes: [{name: keep, emptyDir: {}}]
"""


@pytest.fixture(params=kubectls(), ids=["newest", "machine's"][: len(kubectls())])
def kubectl(request, three_nodes, namespace):
    """Run one of the kubectls in a namespace of its own, where the pods above run."""

    def run(*words: str, **options):
        return three_nodes.kubectl("-n", namespace, *words, program=request.param, **options)

    run("apply", "-f", "-", input=PODS)
    run("wait", "--for=condition=Ready", "pod", "-l", "app=told", "--timeout=60s")
    eventually(lambda: "second" in run("logs", "web", "-c", "main"), what="the second line")
    eventually(lambda: "side" in run("logs", "web", "-c", "side"), what="the other's line")
    eventually(lambda: "second run" in run("logs", "again"), what="the second run")
    return run


def test_logs_in_all_forms(kubectl):
    assert kubectl("logs", "web", "-c", "main") == "main first\nmain second\n"
    assert kubectl("logs", "web", "-c", "main", "--tail=1") == "main second\n"
    assert kubectl("logs", "web", "-c", "main", "--limit-bytes=4") == "main"
    assert kubectl("logs", "web", "-c", "setup") == "set up\n"
    stamp, _, text = kubectl("logs", "web", "-c", "main", "--timestamps", "--tail=1").partition(" ")
    assert stamp.startswith("20")
    assert text == "main second\n"
    assert kubectl("logs", "web", "-c", "main", f"--since-time={stamp}") == "main second\n"
    assert kubectl("logs", "web", "-c", "main", "--since-time=2100-01-01T00:00:00Z") == ""
    assert kubectl("logs", "web", "-c", "side", "--since=1h") == "side only\n"
    assert kubectl("logs", "again") == "second run\n"
    assert kubectl("logs", "again", "--previous") == "first run\n"


def test_logs_of_everything_that_a_selector_means(kubectl):
    found = kubectl("logs", "-l", "app=told", "--all-containers", "--prefix").splitlines()
    assert sorted(found) == [
        "[pod/again/main] second run",
        "[pod/web/main] main first",
        "[pod/web/main] main second",
        "[pod/web/setup] set up",
        "[pod/web/side] side only",
    ]


def test_a_container_is_debugged_from_beside_it(kubectl):
    """The debugger sees the target's processes; it ends by itself, isn't started again, and the pod stays as it was."""
    script = "ps -o args= -C sleep; echo here"
    kubectl("debug", "web", "--image=host", "--target=main", "-c", "look", "--", "sh", "-c", script)
    eventually(lambda: "here" in kubectl("logs", "web", "-c", "look"), what="the debugger's words")
    assert kubectl("logs", "web", "-c", "look") == "sleep 1000\nhere\n"

    def ended():
        told = json.loads(kubectl("get", "pod", "web", "-o", "json"))["status"]["ephemeralContainerStatuses"]
        return [(c["name"], c["state"]["terminated"]["exitCode"], c["restartCount"]) for c in told]

    def over():
        try:
            return ended()
        except KeyError:
            return None

    assert eventually(over) == [("look", 0, 0)]
    assert kubectl("get", "pod", "web", "-o", "jsonpath={.status.phase}") == "Running"
    assert "look:" in kubectl("describe", "pod", "web")


def test_a_debugger_without_a_target_has_processes_of_its_own(kubectl):
    kubectl("debug", "web", "--image=host", "-c", "alone", "--", "sh", "-c", "cat /proc/1/cmdline; exec sleep 1000")
    eventually(lambda: "cmdline" in kubectl("logs", "web", "-c", "alone"), what="its own first process")
    assert kubectl("exec", "web", "-c", "alone", "--", "hostname") == "web\n"


def test_ephemeral_containers_are_only_added(kubectl):
    """As upstream: not in a new pod, not taken away, not to a target that isn't there."""
    pod = json.loads(kubectl("get", "pod", "web", "-o", "json"))
    pod["spec"]["ephemeralContainers"] = [{"name": "x", "image": "host", "command": ["true"]}]
    said = kubectl("replace", "-f", "-", input=json.dumps(pod), check=False)
    assert "pod updates may not change fields" in said
    said = kubectl("debug", "web", "--image=host", "--target=nobody", "--", "true", check=False)
    assert 'spec.ephemeralContainers[0].targetContainerName: Not found: "nobody"' in said


def test_a_followed_log_ends_with_its_container(kubectl):
    kubectl("run", "brief", "--image=host", "--restart=Never", "--", "sh", "-c", "echo one; sleep 1; echo two")
    eventually(lambda: "one" in kubectl("logs", "brief"), what="its first word")
    assert kubectl("logs", "-f", "brief") == "one\ntwo\n"

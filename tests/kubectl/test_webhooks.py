"""Webhooks as somebody at kubectl meets them: exec, scale and eviction of what runs, refused and changed."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kubesvc.box.network import host_link
from support.box import BoxUnderTest
from support.net import run
from support.webhook import Webhook, patch

RULES = [
    {"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"]},
    {"operations": ["UPDATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments/scale"]},
    {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/eviction"]},
]


@pytest.fixture
def hook(tmp_path: Path, three_nodes: BoxUnderTest) -> Iterator[Webhook]:
    """On this machine, at its address towards the box, where the API server finds it."""
    (link,) = json.loads(run("ip", "-j", "-4", "address", "show", "dev", host_link(three_nodes.name)))
    address = link["addr_info"][0]["local"]
    with answering(Webhook(tmp_path, address=address)) as one:
        yield one


@contextmanager
def answering(hook: Webhook) -> Iterator[Webhook]:
    """In a thread of its own, while kubectl is waited for. No connection outlives its question, nor so the thread."""
    hook.keeps = False
    ready, done = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def live() -> None:
        async with hook.serving():
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(live(),), daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield hook
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(60)
        loop.close()


def configuration(kind: str, namespace: str, hook: Webhook) -> str:
    inside = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    entry = hook.entry(RULES, name="guard.example.com", namespaceSelector=inside, timeoutSeconds=30)
    tree = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": namespace}}
    return json.dumps({**tree, "webhooks": [entry]})


def test_exec_scale_and_eviction_are_guarded(three_nodes, namespace, hook):
    def kubectl(*words: str, **options):
        return three_nodes.kubectl("-n", namespace, *words, **options)

    kubectl("create", "deployment", "web", "--image=host", "--", "sleep", "1000")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    (pod,) = kubectl("get", "pods", "-o", "name").split()
    node = kubectl("get", pod, "-o", "jsonpath={.spec.nodeName}")
    kubectl("apply", "-f", "-", input=configuration("ValidatingWebhookConfiguration", namespace, hook))
    hook.decide = lambda request: {"allowed": False, "status": {"message": f"no {request['subResource']} here"}}
    try:
        told = 'admission webhook "guard.example.com" denied the request: no '
        assert f"{told}exec here" in kubectl("exec", pod, "--", "true", check=False)
        assert f"{told}scale here" in kubectl("scale", "deployment/web", "--replicas=2", check=False)
        drained = kubectl("drain", node, "--pod-selector=app=web", "--timeout=60s", check=False)
        assert f"{told}eviction here" in drained
        assert kubectl("get", pod, "-o", "jsonpath={.metadata.deletionTimestamp}") == ""
        kubectl("delete", "validatingwebhookconfiguration", namespace)
        kubectl("apply", "-f", "-", input=configuration("MutatingWebhookConfiguration", namespace, hook))
        hook.decide = lambda request: patch({"op": "replace", "path": "/command", "value": ["echo", "as it was made"]})
        assert kubectl("exec", pod, "--", "echo", "as it was asked") == "as it was made\n"
    finally:
        kinds = "validatingwebhookconfiguration,mutatingwebhookconfiguration"
        kubectl("delete", kinds, namespace, "--ignore-not-found")
        kubectl("uncordon", node)

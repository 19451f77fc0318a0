"""Killing a box's processes at random under traffic, and what must be the same afterwards."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass, field
from random import Random
from typing import Any

from support.box import BoxUnderTest, eventually

# A new connection through the Service's name, again and again; for each tenth of a second a line: good, what failed.
CLIENT = """
import collections, time, urllib.request
while True:
    told, until = collections.Counter(), time.monotonic() + 0.1
    while time.monotonic() < until:
        try:
            urllib.request.urlopen("http://web/", timeout=2).read()
            told["good"] += 1
        except Exception as error:
            told[f"{type(error).__name__}: {error}".replace(" ", "_")] += 1
        time.sleep(0.01)
    print(*(f"{what}={count}" for what, count in told.items()), flush=True)
"""
SERVER = ["python3", "-m", "http.server", "8000"]
PROBE = {"tcpSocket": {"port": 8000}, "periodSeconds": 1}


def _deployment(name: str, replicas: int, container: dict[str, object]) -> dict[str, object]:
    labels = {"app": name}
    spread = {"topologyKey": "kubernetes.io/hostname", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
    spec = {
        "terminationGracePeriodSeconds": 1,
        "topologySpreadConstraints": [{**spread, "labelSelector": {"matchLabels": labels}}],
        "containers": [{"name": "c", "image": "host", **container}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def begin(box: BoxUnderTest) -> None:
    """Three servers behind a Service, a client on each node; returns when all are ready."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8000}]},
    }
    items = [
        service,
        _deployment("web", 3, {"command": SERVER, "readinessProbe": PROBE}),
        _deployment("client", 2, {"command": ["python3", "-c", CLIENT]}),
    ]
    box.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    for name in ("web", "client"):
        box.kubectl("rollout", "status", f"deployment/{name}", "--timeout=60s")
    eventually(lambda: [ready for _, ready in state(box)["endpoints"]] == [True] * 3, what="three endpoints")
    eventually(lambda: "good=" in box.kubectl("logs", "deployment/client", "--tail=5"), what="a first answer")


def state(box: BoxUnderTest) -> dict[str, Any]:
    """All that a kill may not change: which pods there are, where, how often restarted, and who is an endpoint."""
    pods = box.get("pods")["items"]
    slices = box.get("endpointslices", "-l", "kubernetes.io/service-name=web")["items"]
    return {
        "pods": {
            p["metadata"]["name"]: (
                p["metadata"]["uid"],
                p["spec"]["nodeName"],
                p["status"]["podIP"],
                [(c["restartCount"], c["ready"], c["containerID"]) for c in p["status"]["containerStatuses"]],
            )
            for p in pods
        },
        "endpoints": sorted(
            (e["addresses"], e["conditions"]["ready"]) for s in slices for e in s.get("endpoints") or ()
        ),
        "nodes": {
            n["metadata"]["name"]: [c["status"] for c in n["status"]["conditions"] if c["type"] == "Ready"]
            for n in box.get("nodes")["items"]
        },
    }


@dataclass(slots=True)
class Outcome:
    kills: dict[str, int] = field(default_factory=dict)  # process -> how often
    good: int = 0
    failures: dict[str, int] = field(default_factory=dict)  # what clients saw -> how often
    longest: float = 0.0  # seconds from a kill until the process was there again


def kill(box: BoxUnderTest, times: int, dice: Random, pause: float = 0.0) -> Outcome:
    """One after the other: whichever the dice say, up to `pause` seconds after the one before is there again."""
    found = Outcome()
    for _ in range(times):
        time.sleep(dice.uniform(0.0, pause))
        running = {name: pid for name, pid in box.pids().items() if pid}
        name = dice.choice(sorted(running))
        began = time.monotonic()
        os.kill(running[name], signal.SIGKILL)
        pid = running[name]
        eventually(lambda: box.pids()[name] not in (0, pid), patience=60.0, what=f"{name} again")  # noqa: B023
        found.longest = max(found.longest, time.monotonic() - began)
        found.kills[name] = found.kills.get(name, 0) + 1
    return found


def settle(box: BoxUnderTest, before: dict[str, Any], found: Outcome) -> None:
    """Wait until everything is as `before` and both clients get answers; count what they saw."""
    eventually(lambda: state(box) == before, patience=60.0, what=f"the state from before: {before}")
    for pod in box.get("pods", "-l", "app=client")["items"]:
        name = pod["metadata"]["name"]
        mark = len(box.kubectl("logs", name).splitlines())
        eventually(
            lambda name=name, mark=mark: _only_good(box.kubectl("logs", name).splitlines()[mark:]),  # type: ignore[misc]
            what=f"{name} is answered",
        )
        for word in box.kubectl("logs", name).split():
            what, _, count = word.rpartition("=")
            if what == "good":
                found.good += int(count)
            else:
                found.failures[what] = found.failures.get(what, 0) + int(count)


def _only_good(lines: list[str]) -> bool:
    """Whether the last half second brought answers alone."""
    return len(lines) >= 5 and all(line.startswith("good=") and " " not in line for line in lines[-5:])

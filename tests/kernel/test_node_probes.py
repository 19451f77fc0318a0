"""Probes, hooks and gates of real pods."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kubesvc.api import registry
from kubesvc.api.pods import Pod
from kubesvc.client.session import STRATEGIC_PATCH
from support.node import NodeBed, is_ready

FOREVER = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]

# A gRPC server as short as HTTP/2 allows: it answers Check with what /tmp/health says, for the one service it knows.
HEALTH_SERVER = """
import pathlib, socketserver
def frame(kind, flags, stream, body):
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body
class Server(socketserver.StreamRequestHandler):
    def handle(self):
        assert self.rfile.read(24) == b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n"
        self.wfile.write(frame(4, 0, 0, b""))
        path = message = b""
        while not message:
            head = self.rfile.read(9)
            body = self.rfile.read(int.from_bytes(head[:3], "big"))
            path, message = (body, message) if head[3] == 1 else (path, body if head[3] == 0 else b"")
        known = b"/grpc.health.v1.Health/Check" in path and message == b"\\0\\0\\0\\0\\x06\\n\\x04shop"
        if known:
            status = bytes((8, int(pathlib.Path("/tmp/health").read_text())))
            self.wfile.write(frame(1, 4, 1, b"\\x88") + frame(0, 0, 1, b"\\0\\0\\0\\0\\2" + status))
        self.wfile.write(frame(1, 5, 1, b"\\x88"))
class Threads(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
pathlib.Path("/tmp/health").write_text("1")
Threads(("", 9000), Server).serve_forever()
"""


def main_status(pod: Pod) -> Any:
    return pod.status.container_statuses[0]


async def test_a_grpc_probe_asks_for_its_service(bed: NodeBed) -> None:
    """SERVING is ready; another health is not, and the event gives it."""
    probe = {"grpc": {"port": 9000, "service": "shop"}, "periodSeconds": 1, "failureThreshold": 1}
    await bed.create("grpc", ["/usr/bin/python3", "-S", "-c", HEALTH_SERVER], container={"readinessProbe": probe})
    await bed.running("grpc")
    await bed.execute("grpc", ["sh", "-c", "echo 2 > /tmp/health"])
    await bed.until("grpc", lambda p: not is_ready(p))
    told = 'Readiness probe failed: service unhealthy (responded with "NOT_SERVING")'
    await bed.until_event("grpc", "Unhealthy", told)


async def test_a_grpc_probe_for_a_service_the_server_does_not_know_fails(bed: NodeBed) -> None:
    probe = {"grpc": {"port": 9000, "service": "else"}, "periodSeconds": 1, "failureThreshold": 1}
    command = ["/usr/bin/python3", "-S", "-c", HEALTH_SERVER]
    await bed.create("grpc", command, container={"livenessProbe": probe, "startupProbe": probe})
    await bed.until_event("grpc", "Unhealthy", "Startup probe failed: error: health rpc probe failed: the server")
    await bed.until_event("grpc", "Killing", "Container main failed startup probe, will be restarted")


async def test_a_liveness_probe_has_a_grace_period_of_its_own(bed: NodeBed) -> None:
    """The pod's is an hour; the probe's, a second, ends a container that ignores SIGTERM."""
    probe = {
        "exec": {"command": ["false"]},
        "periodSeconds": 1,
        "failureThreshold": 1,
        "terminationGracePeriodSeconds": 1,
    }
    stubborn = ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]
    await bed.create("hang", stubborn, container={"livenessProbe": probe}, terminationGracePeriodSeconds=3600)
    pod = await bed.until("hang", lambda p: p.status.container_statuses and main_status(p).restart_count)
    assert main_status(pod).last_state.terminated.exit_code == 137


HOOK_SERVER = ["/usr/bin/python3", "-S", "-m", "http.server", "8000"]


@pytest.mark.parametrize(
    ("command", "hook", "seen"),
    [
        (FOREVER, {"exec": {"command": ["sh", "-c", "echo done > /out/hook"]}}, True),
        (HOOK_SERVER, {"httpGet": {"port": 8000, "path": "/nowhere"}}, False),
        (FOREVER, {"sleep": {"seconds": 1}}, True),
    ],
    ids=["exec", "httpGet that is refused", "sleep"],
)
async def test_pre_stop_hooks_run_before_sigterm(
    bed: NodeBed, tmp_path: Path, command: list[str], hook: dict[str, Any], seen: bool
) -> None:
    volumes = [{"name": "out", "hostPath": {"path": str(tmp_path)}}]
    up = {"readinessProbe": {"tcpSocket": {"port": 8000}}} if command is HOOK_SERVER else {}
    container = {**up, "lifecycle": {"preStop": hook}, "volumeMounts": [{"name": "out", "mountPath": "/out"}]}
    await bed.create("stopped", command, container=container, volumes=volumes, terminationGracePeriodSeconds=10)
    await bed.running("stopped")
    begun = asyncio.get_running_loop().time()
    await bed.delete("stopped")
    await bed.until_gone("stopped")
    if "exec" in hook:
        assert (tmp_path / "hook").read_text() == "done\n"
    if "sleep" in hook:
        assert asyncio.get_running_loop().time() - begun >= 1.0
    if not seen:
        await bed.until_event("stopped", "FailedPreStopHook", "PreStopHook failed: ")
    told = [message for reason, message in bed.events("stopped") if reason == "FailedPreStopHook"]
    assert bool(told) is not seen, told
    assert seen or "statuscode: 404" in told[0]


async def test_a_failed_post_start_hook_restarts_the_container(bed: NodeBed) -> None:
    """It isn't ready before the hook has succeeded, and is killed when it fails."""
    hook = {"exec": {"command": ["sh", "-c", "echo no; exit 1"]}}
    await bed.create("hooked", FOREVER, container={"lifecycle": {"postStart": hook}})
    await bed.until_event("hooked", "FailedPostStartHook", "PostStartHook failed: no")
    pod = await bed.until("hooked", lambda p: p.status.container_statuses and main_status(p).restart_count)
    assert not is_ready(pod)


async def test_a_readiness_gate_holds_the_pod_back_until_its_condition_is_true(bed: NodeBed) -> None:
    await bed.create("gated", FOREVER, readinessGates=[{"conditionType": "example.com/open"}])

    def told(pod: Pod) -> str:
        found = next((c for c in pod.status.conditions if c.type == "Ready" and c.reason), None)
        return found.message if found else ""

    absent = 'corresponding condition of pod readiness gate "example.com/open" does not exist.'
    pod = await bed.until("gated", lambda p: told(p) == absent)
    assert main_status(pod).ready
    await _gate(bed, "False")
    shut = 'the status of pod readiness gate "example.com/open" is not "True", but False'
    await bed.until("gated", lambda p: told(p) == shut)
    await _gate(bed, "True")
    await bed.until("gated", is_ready)
    await _gate(bed, "False")
    await bed.until("gated", lambda p: told(p) == shut)


async def _gate(bed: NodeBed, status: str) -> None:
    patch = {"status": {"conditions": [{"type": "example.com/open", "status": status}]}}
    await bed.session.patch(registry.POD, "default", "gated", patch, subresource="status", patch_type=STRATEGIC_PATCH)


async def test_a_startup_probe_gives_a_slow_program_its_time(bed: NodeBed) -> None:
    """Liveness, which would have killed it, begins only afterwards: no restart."""
    slow = ["/bin/sh", "-c", "sleep 2.5; touch /tmp/up; while :; do sleep 0.1; done"]
    check = {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1}
    container = {"startupProbe": {**check, "failureThreshold": 30}, "livenessProbe": {**check, "failureThreshold": 1}}
    await bed.create("slow", slow, container=container)
    pod = await bed.running("slow")
    assert main_status(pod).restart_count == 0

"""What happens to a pod's containers next, and what its status says."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kubesvc.api.meta import Condition, ObjectMeta
from kubesvc.api.pods import Container, Pod, PodReadinessGate, PodSpec, PodStatus
from kubesvc.node import lifecycle, status
from kubesvc.node.lifecycle import Backoff, Exit, Plan, State, View

NOW = 1_000_000.0


def waiting(name: str, **more: object) -> View:
    return replace(View(name), **more)  # type: ignore[arg-type]


def running(name: str, *, ready: bool = True, attempt: int = 0) -> View:
    return View(name, State.RUNNING, "id", attempt, NOW - 5, started=True, ready=ready)


def ended(name: str, code: int, *, backoff: Backoff | None = None, ago: float = 0.0, attempt: int = 0) -> View:
    exit_ = Exit(code, "Completed" if code == 0 else "Error", NOW - ago, NOW - ago - 5, id="id")
    return replace(View(name, id="id", attempt=attempt).ended(exit_), backoff=backoff or Backoff())


def pod(*names: str, init: tuple[str, ...] = (), sidecars: tuple[str, ...] = (), policy: str = "Always") -> Pod:
    inits = [Container(name=n, image="host", restart_policy="Always") for n in sidecars]
    inits += [Container(name=n, image="host") for n in init]
    containers = [Container(name=n, image="host") for n in names]
    return Pod(
        metadata=ObjectMeta(name="p", namespace="default", uid="u"),
        spec=PodSpec(containers=containers, init_containers=inits, restart_policy=policy),
    )


def plan(of: Pod, *views: View, now: float = NOW) -> Plan:
    return lifecycle.plan(of.spec, {v.name: v for v in views}, now)


@pytest.mark.parametrize(
    ("of", "views", "start", "finished"),
    [
        pytest.param(pod("a", "b"), (waiting("a"), waiting("b")), ("a", "b"), False, id="all-containers-at-once"),
        pytest.param(
            pod("a", init=("i", "j")), (waiting("i"), waiting("j"), waiting("a")), ("i",), False, id="first-init"
        ),
        pytest.param(pod("a", init=("i",)), (running("i"), waiting("a")), (), False, id="init-runs"),
        pytest.param(pod("a", init=("i",)), (ended("i", 0), waiting("a")), ("a",), False, id="init-done"),
        pytest.param(pod("a", init=("i",)), (ended("i", 1), waiting("a")), ("i",), False, id="init-failed-goes-again"),
        pytest.param(
            pod("a", init=("i",), policy="Never"), (ended("i", 1), waiting("a")), (), True, id="init-failed-for-good"
        ),
        pytest.param(pod("a", sidecars=("s",)), (waiting("s"), waiting("a")), ("s",), False, id="sidecar-first"),
        pytest.param(pod("a", sidecars=("s",)), (running("s"), waiting("a")), ("a",), False, id="sidecar-has-started"),
        pytest.param(
            pod("a", sidecars=("s",)),
            (ended("s", 1, attempt=1), waiting("a")),
            ("s", "a"),
            False,
            id="sidecar-fell-later",
        ),
        pytest.param(pod("a"), (ended("a", 1),), ("a",), False, id="first-restart-is-at-once"),
        pytest.param(pod("a", policy="OnFailure"), (ended("a", 0),), (), True, id="on-failure-success-ends"),
        pytest.param(pod("a", policy="OnFailure"), (ended("a", 3),), ("a",), False, id="on-failure-failure-goes-again"),
        pytest.param(
            pod("a", "b", policy="Never"), (ended("a", 3), running("b")), (), False, id="never-one-still-runs"
        ),
        pytest.param(pod("a", "b", policy="Never"), (ended("a", 3), ended("b", 0)), (), True, id="never-all-ended"),
    ],
)
def test_plan(of: Pod, views: tuple[View, ...], start: tuple[str, ...], finished: bool) -> None:
    found = plan(of, *views)
    assert (found.start, found.finished) == (start, finished)


def test_backoff_grows_from_ten_seconds_to_five_minutes_and_is_forgotten() -> None:
    backoff, now, delays = Backoff(), NOW, []
    for _ in range(8):
        backoff = backoff.next(now)
        delays.append(backoff.delay)
        now += backoff.delay
    assert delays == [10, 20, 40, 80, 160, 300, 300, 300]
    assert Backoff().after(NOW) == NOW
    assert backoff.after(now) == now + 300
    assert backoff.after(now + 601) == now + 601
    assert backoff.next(now + 601).delay == 10


def test_a_container_in_backoff_waits_for_its_time_and_no_longer() -> None:
    view = ended("a", 1, backoff=Backoff(20, NOW - 8), ago=5)
    found = plan(pod("a"), view)
    assert (found.start, dict(found.backing_off), found.wake) == ((), {"a": 20}, NOW + 15)
    assert plan(pod("a"), view, now=NOW + 15).start == ("a",)


def test_what_failed_to_start_is_not_tried_before_its_time() -> None:
    view = waiting("a").waiting("ErrImagePull", "no such image", retry_at=NOW + 3)
    assert plan(pod("a"), view) == Plan(wake=NOW + 3)


@pytest.mark.parametrize(
    ("of", "views", "phase"),
    [
        pytest.param(pod("a"), (waiting("a"),), "Pending", id="not-begun"),
        pytest.param(pod("a", init=("i",)), (running("i"), waiting("a")), "Pending", id="initializing"),
        pytest.param(pod("a"), (running("a", ready=False),), "Running", id="running-unready"),
        pytest.param(pod("a", "b"), (running("a"), waiting("b")), "Pending", id="one-not-begun"),
        pytest.param(pod("a"), (ended("a", 1),), "Running", id="always-between-attempts"),
        pytest.param(pod("a"), (ended("a", 1).waiting("CrashLoopBackOff", ""),), "Running", id="always-backing-off"),
        pytest.param(pod("a", policy="Never"), (ended("a", 0),), "Succeeded", id="never-succeeded"),
        pytest.param(pod("a", "b", policy="Never"), (ended("a", 0), ended("b", 2)), "Failed", id="never-failed"),
        pytest.param(pod("a", policy="OnFailure"), (ended("a", 2),), "Running", id="on-failure-goes-again"),
        pytest.param(pod("a", init=("i",), policy="Never"), (ended("i", 1), waiting("a")), "Failed", id="init-failed"),
        pytest.param(
            pod("a", sidecars=("s",), policy="Never"), (running("s"), ended("a", 0)), "Running", id="a-sidecar-runs"
        ),
        pytest.param(
            pod("a", sidecars=("s",), policy="Never"), (ended("s", 1), ended("a", 0)), "Succeeded", id="no-sidecar-does"
        ),
        pytest.param(
            pod("a", init=("i",), sidecars=("s",), policy="Never"),
            (running("s"), ended("i", 1), waiting("a")),
            "Pending",
            id="init-failed-a-sidecar-runs",
        ),
    ],
)
def test_phase(of: Pod, views: tuple[View, ...], phase: str) -> None:
    assert status.phase(of, {v.name: v for v in views}) == phase


def build(of: Pod, *views: View, ended: bool = False) -> dict[str, object]:
    found = status.build(
        of,
        {v.name: v for v in views},
        NOW,
        addresses=["10.244.0.5"],
        host_ips=["172.29.0.2"],
        started_at=NOW - 60,
        ended=ended,
    )
    conditions = {c["type"]: (c["status"], c["reason"], c["message"]) for c in found["conditions"]}
    return {**found, "conditions": conditions}


def test_ready_follows_every_container() -> None:
    found = build(pod("a", "b"), running("a"), running("b", ready=False))
    words = ("False", "ContainersNotReady", "containers with unready status: [b]")
    assert found["conditions"]["Ready"] == words  # type: ignore[index]
    assert found["conditions"]["ContainersReady"] == words  # type: ignore[index]
    assert build(pod("a"), running("a"))["conditions"]["Ready"][0] == "True"  # type: ignore[index]


def test_a_container_that_ended_is_not_ready_and_says_how() -> None:
    found = build(pod("a"), ended("a", 3, ago=1))
    assert found["phase"] == "Running"
    assert found["conditions"]["Ready"][0] == "False"  # type: ignore[index]
    (container,) = found["containerStatuses"]  # type: ignore[misc]
    assert container["state"]["terminated"]["exitCode"] == 3
    assert container["ready"] is False


def test_crash_loop_shows_the_last_exit_and_waits() -> None:
    view = ended("a", 3).waiting("CrashLoopBackOff", "back-off 10s")
    (container,) = build(pod("a"), view)["containerStatuses"]  # type: ignore[misc]
    assert container["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    assert container["lastState"]["terminated"]["exitCode"] == 3


def test_a_pod_whose_init_container_failed_was_never_initialized() -> None:
    found = build(pod("a", init=("i",), policy="Never"), ended("i", 1), waiting("a"))
    words = ("False", "ContainersNotInitialized", "containers with incomplete status: [i]")
    assert (found["phase"], found["conditions"]["Initialized"]) == ("Failed", words)  # type: ignore[index]


def test_who_waits_for_init_containers_says_so() -> None:
    found = build(pod("a", init=("i", "j")), running("i"), waiting("j"), waiting("a"))
    (main,), (_, second) = found["containerStatuses"], found["initContainerStatuses"]  # type: ignore[misc]
    assert main["state"] == second["state"] == {"waiting": {"reason": "PodInitializing"}}
    (main,) = build(pod("a"), waiting("a"))["containerStatuses"]  # type: ignore[misc]
    assert main["state"] == {"waiting": {"reason": "ContainerCreating"}}


def test_initialized_names_what_is_incomplete() -> None:
    found = build(pod("a", init=("i", "j")), ended("i", 0), waiting("j"), waiting("a"))
    words = ("False", "ContainersNotInitialized", "containers with incomplete status: [j]")
    assert found["conditions"]["Initialized"] == words  # type: ignore[index]


def test_a_readiness_gate_keeps_the_pod_unready_but_not_its_containers() -> None:
    plain = pod("a")
    spec = replace_spec(plain, readiness_gates=[PodReadinessGate(condition_type="example.com/ok")])
    found = build(spec, running("a"))["conditions"]
    assert found["ContainersReady"][0] == "True"  # type: ignore[index]
    assert found["Ready"][1] == "ReadinessGatesNotReady"  # type: ignore[index]
    passed = Pod(
        metadata=spec.metadata,
        spec=spec.spec,
        status=PodStatus(conditions=[Condition(type="example.com/ok", status="True")]),
    )
    assert build(passed, running("a"))["conditions"]["Ready"][0] == "True"  # type: ignore[index]


def replace_spec(of: Pod, **changes: object) -> Pod:
    fields = {name: getattr(of.spec, name) for name in PodSpec.__struct_fields__}
    return Pod(metadata=of.metadata, spec=PodSpec(**{**fields, **changes}))


def test_a_pod_told_to_go_ends_as_its_containers_did() -> None:
    assert build(pod("a"), ended("a", 0), ended=True)["phase"] == "Succeeded"
    assert build(pod("a"), ended("a", 137), ended=True)["phase"] == "Failed"


def test_transition_time_changes_with_the_status_alone() -> None:
    before = [Condition(type="Ready", status="True", last_transition_time="2020-01-01T00:00:00Z")]
    same, other = (
        status.conditions({"Ready": (word, "", "")}, before, NOW, 0)[0]["lastTransitionTime"]
        for word in ("True", "False")
    )
    assert same == "2020-01-01T00:00:00Z"
    assert other != same

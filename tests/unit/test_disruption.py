"""Disruption budgets: what they allow, and evictions that keep to it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from kubesvc.api.errors import ApiError
from kubesvc.api.meta import JSON, format_time, parse_time
from kubesvc.api.pods import Pod
from kubesvc.api.policy import PodDisruptionBudget
from kubesvc.api.registry import POD, POD_DISRUPTION_BUDGET
from kubesvc.client.session import Session
from kubesvc.controllers.disruption.plan import failed, is_of_scale, plan, status_patch
from support.apiserver import local_session
from support.objects import make, pod

NOW = parse_time("2026-01-01T01:00:00Z")
LATER = format_time(NOW + timedelta(seconds=30))


def budget(status: dict[str, Any] | None = None, **spec: Any) -> PodDisruptionBudget:
    return make(PodDisruptionBudget, "b", spec={"selector": {}, **spec}, status=status or {})


def at(seconds: int) -> str:
    return format_time(NOW - timedelta(seconds=seconds))


UP, DOWN, GOING = pod("a"), pod("b", ready=False), pod("c", going=True)


@pytest.mark.parametrize(
    ("found", "pods", "scale", "allowed", "healthy", "desired", "expected"),
    [
        pytest.param(budget(minAvailable=1), [UP, pod("d")], 0, 1, 2, 1, 2, id="one of two"),
        pytest.param(budget(minAvailable=2), [UP, pod("d")], 0, 0, 2, 2, 2, id="none of two"),
        pytest.param(budget(minAvailable=1), [UP, DOWN, GOING], 0, 0, 1, 1, 3, id="only ready ones that stay count"),
        pytest.param(budget(minAvailable=0), [], 0, 0, 0, 0, 0, id="no pod, nothing allowed"),
        pytest.param(budget(minAvailable="50%"), [UP, pod("d")], 3, 0, 2, 2, 3, id="a share of the scale, rounded up"),
        pytest.param(budget(maxUnavailable=1), [UP, pod("d")], 2, 1, 2, 1, 2, id="at most one away"),
        pytest.param(budget(maxUnavailable=1), [UP, pod("d")], 3, 0, 2, 2, 3, id="one is away already"),
        pytest.param(budget(maxUnavailable="30%"), [UP], 10, 0, 1, 7, 10, id="a share of them away"),
        pytest.param(budget(maxUnavailable=5), [UP], 1, 1, 1, 0, 1, id="more than there are"),
        pytest.param(budget(), [UP], 0, 0, 1, 0, 0, id="nothing said, nothing allowed"),
        pytest.param(
            budget({"disruptedPods": {"a": at(10)}}, minAvailable=0), [UP, pod("d")], 0, 1, 1, 0, 2,
            id="one is granted and not seen to go yet",
        ),
        pytest.param(
            budget({"disruptedPods": {"a": at(121)}}, minAvailable=0), [UP, pod("d")], 0, 2, 2, 0, 2,
            id="granted long ago: it stays",
        ),
    ],
)  # fmt: skip
def test_what_is_allowed(
    found: PodDisruptionBudget, pods: list[Pod], scale: int, allowed: int, healthy: int, desired: int, expected: int
) -> None:
    status = plan(found, pods, scale, NOW).status
    counts = (status.disruptions_allowed, status.current_healthy, status.desired_healthy, status.expected_pods)
    assert counts == (allowed, healthy, desired, expected)
    (condition,) = status.conditions
    assert (condition.type, condition.status) == ("DisruptionAllowed", "True" if allowed else "False")
    assert condition.reason == ("SufficientPods" if allowed else "InsufficientPods")
    assert (status.observed_generation, condition.observed_generation) == (1, 1)


def test_the_scale_matters_for_shares_and_for_what_may_be_away() -> None:
    of_scale = [budget(minAvailable="1%"), budget(maxUnavailable=1), budget(maxUnavailable="1%")]
    assert [is_of_scale(b.spec) for b in [*of_scale, budget(minAvailable=1), budget()]] == [True] * 3 + [False] * 2


def test_granted_evictions_are_kept_until_seen_or_overdue() -> None:
    granted = {"a": at(10), "c": at(10), "late": at(121), "gone": at(10)}
    found = budget({"disruptedPods": granted}, minAvailable=0)
    decided = plan(found, [UP, GOING, pod("late")], 0, NOW)
    assert decided.status.disrupted_pods == {"a": at(10)}
    assert (decided.again, [p.name for p in decided.overdue]) == (110.0, ["late"])
    patched = status_patch(found, decided.status)["status"]["disruptedPods"]
    assert patched == {"a": at(10), "c": None, "late": None, "gone": None}
    assert status_patch(found, plan(found, [GOING], 0, NOW).status)["status"]["disruptedPods"] is None


def test_where_nobody_knows_nothing_is_allowed_and_the_reason_is_said() -> None:
    found = budget({"disruptionsAllowed": 3, "currentHealthy": 4}, maxUnavailable=3)
    status = failed(found, "found no controller", NOW)
    assert (status.disruptions_allowed, status.current_healthy) == (0, 4)
    (condition,) = status.conditions
    assert (condition.status, condition.reason, condition.message) == ("False", "SyncFailed", "found no controller")


def test_a_condition_keeps_when_it_turned() -> None:
    found = budget(minAvailable=0)
    first = plan(found, [UP], 0, NOW).status
    again = make(PodDisruptionBudget, "b", spec={"minAvailable": 0}, status=msgspec.to_builtins(first))
    later = NOW + timedelta(seconds=30)
    assert plan(again, [UP], 0, later).status == first
    assert plan(again, [], 0, later).status.conditions[0].last_transition_time == LATER


# ── evictions ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def run_pods(session: Session, *names: str, ready: bool = True) -> None:
    for name in names:
        metadata = {"name": name, "namespace": "default", "labels": {"app": "web"}}
        spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "host"}]}
        await session.create(POD, {"metadata": metadata, "spec": spec})
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        await session.patch(POD, "default", name, {"status": {"phase": "Running", "conditions": conditions}},
                            subresource="status")  # fmt: skip


async def put(session: Session, status: JSON, name: str = "b", **spec: Any) -> None:
    metadata = {"name": name, "namespace": "default"}
    whole = {"selector": {"matchLabels": {"app": "web"}}, "minAvailable": 1, **spec}
    await session.create(POD_DISRUPTION_BUDGET, {"metadata": metadata, "spec": whole})
    await session.patch(POD_DISRUPTION_BUDGET, "default", name, {"status": status}, subresource="status")


async def evict(session: Session, name: str, **more: Any) -> tuple[str, str]:
    """(reason, cause) of the refusal; two empty texts where it is granted."""
    path = POD.path("default", name, "eviction")
    try:
        await session.raw("POST", path, body=msgspec.json.encode({"metadata": {"name": name}, **more}))
    except ApiError as error:
        causes = (error.details or {}).get("causes") or [{"message": error.message}]
        return error.reason, causes[0]["message"]
    return "", ""


def counts(allowed: int, healthy: int = 2, desired: int = 1, generation: int = 1) -> JSON:
    numbers = {"disruptionsAllowed": allowed, "currentHealthy": healthy, "desiredHealthy": desired, "expectedPods": 2}
    return {"observedGeneration": generation, **numbers}


async def test_an_eviction_is_counted_and_the_next_one_held() -> None:
    async with local_session() as session:
        await run_pods(session, "p", "q")
        await put(session, counts(1))
        dry = await evict(session, "p", deleteOptions={"dryRun": ["All"]})
        assert dry == ("", "")
        assert await evict(session, "p") == ("", "")
        status = (await session.get(POD_DISRUPTION_BUDGET, "default", "b"))["status"]
        assert (status["disruptionsAllowed"], list(status["disruptedPods"])) == (0, ["p"])
        going = await session.get(POD, "default", "p")
        assert going["metadata"]["deletionTimestamp"]
        target = going["status"]["conditions"][-1]
        assert (target["type"], target["reason"]) == ("DisruptionTarget", "EvictionByEvictionAPI")
        why = "The disruption budget b needs 1 healthy pods and has 2 currently"
        assert await evict(session, "q") == ("TooManyRequests", why)
        assert "deletionTimestamp" not in (await session.get(POD, "default", "q"))["metadata"]
        assert await evict(session, "p") == ("", "")  # it goes already


async def test_of_many_evictions_at_once_as_many_are_granted_as_are_allowed() -> None:
    names = [f"p{n}" for n in range(8)]
    async with local_session() as session:
        await run_pods(session, *names)
        await put(session, counts(3))
        answers = await asyncio.gather(*(evict(session, name) for name in names))
        assert sorted(reason for reason, _ in answers) == [""] * 3 + ["TooManyRequests"] * 5


@pytest.mark.parametrize(
    ("status", "spec", "ready", "answer"),
    [
        pytest.param(counts(0), {}, False, ("", ""), id="not ready, and enough without it"),
        pytest.param(counts(0, healthy=0), {}, False, ("TooManyRequests", "The disruption budget b needs 1 healthy "
                     "pods and has 0 currently"), id="not ready, and too few"),
        pytest.param(counts(0, healthy=0), {"unhealthyPodEvictionPolicy": "AlwaysAllow"}, False, ("", ""),
                     id="not ready may always go"),
        pytest.param(counts(0), {"unhealthyPodEvictionPolicy": "AlwaysAllow"}, True, ("TooManyRequests",
                     "The disruption budget b needs 1 healthy pods and has 2 currently"), id="ready may not"),
        pytest.param(counts(1, generation=0), {}, True, ("TooManyRequests", "The disruption budget b is still being "
                     "processed by the server."), id="not counted yet"),
        pytest.param({**counts(0), "conditions": [{"type": "DisruptionAllowed", "status": "False", "reason":
                     "SyncFailed", "message": "no scale"}]}, {}, True, ("TooManyRequests", "The disruption budget b "
                     "does not allow evicting pods currently because it failed sync: no scale"), id="not countable"),
        pytest.param(counts(-1), {}, True, ("Forbidden", 'poddisruptionbudget.policy "b" is forbidden: pdb disruptions '
                     "allowed is negative"), id="nonsense"),
        pytest.param(counts(0), {"selector": {"matchLabels": {"app": "db"}}}, True, ("", ""), id="of other pods"),
        pytest.param(counts(0), {"selector": None}, True, ("", ""), id="of no pods"),
        pytest.param(counts(0), {"selector": {}}, True, ("TooManyRequests", "The disruption budget b needs 1 healthy "
                     "pods and has 2 currently"), id="of all pods"),
    ],
)  # fmt: skip
async def test_who_is_held(status: JSON, spec: JSON, ready: bool, answer: tuple[str, str]) -> None:
    async with local_session() as session:
        await run_pods(session, "p", ready=ready)
        await put(session, status, **spec)
        assert await evict(session, "p") == answer


async def test_two_budgets_of_one_pod_are_named() -> None:
    async with local_session() as session:
        await run_pods(session, "p")
        await put(session, counts(1))
        await put(session, counts(1), name="c")
        reason, message = await evict(session, "p")
        assert reason == "InternalError"
        assert message.startswith("This pod has more than one PodDisruptionBudget, which the eviction subresource does")
        assert ": b, c." in message


async def test_a_pod_that_isnt_ready_goes_only_as_it_was_seen() -> None:
    """It may become ready in between: then the budget holds it."""
    async with local_session() as session:
        await run_pods(session, "p", ready=False)
        await put(session, counts(0))
        stale = {"preconditions": {"resourceVersion": "1"}}
        assert (await evict(session, "p", deleteOptions=stale))[0] == "Conflict"

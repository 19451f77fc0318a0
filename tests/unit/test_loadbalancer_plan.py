"""What the load-balancer controller decides about one Service, and the patches it makes."""

from __future__ import annotations

import pytest

from kubesvc.api.core import LoadBalancerIngress, LoadBalancerStatus, Service, ServiceSpec, ServiceStatus
from kubesvc.api.labels import LOAD_BALANCER_CLEANUP
from kubesvc.api.meta import Condition, ObjectMeta
from kubesvc.loadbalancer.plan import READY, Step, add_finalizer, decide, remove_finalizer, status_patch

NOW, BEFORE = "2026-02-03T04:05:06Z", "2026-01-01T00:00:00Z"
SHOWN = LoadBalancerStatus(ingress=[LoadBalancerIngress(ip="172.29.7.200", ip_mode="VIP")])
DONE = Condition(type=READY, status="True", reason="Ensured", message="the load balancer is 172.29.7.200")
WAITING = Condition(type=READY, status="False", reason="PoolExhausted", message="all are in use")
FOREIGN = Condition(type="LoadBalancerPortsError", status="False", reason="Fine", last_transition_time=BEFORE)


def service(
    service_type: str = "LoadBalancer",
    *,
    finalizers: tuple[str, ...] = (),
    deleted: bool = False,
    conditions: tuple[Condition, ...] = (),
    shown: LoadBalancerStatus | None = None,
) -> Service:
    meta = ObjectMeta(
        name="web",
        namespace="shop",
        resource_version="7",
        finalizers=list(finalizers),
        deletion_timestamp=BEFORE if deleted else None,
    )
    status = ServiceStatus(load_balancer=shown or LoadBalancerStatus(), conditions=list(conditions))
    return Service(metadata=meta, spec=ServiceSpec(type=service_type), status=status)


OURS = (LOAD_BALANCER_CLEANUP,)


@pytest.mark.parametrize(
    ("seen", "owned", "remembered", "has_default", "step"),
    [
        (service(), True, False, True, Step.ENSURE),
        (service(finalizers=OURS), True, True, True, Step.ENSURE),
        (service(), False, False, True, Step.IGNORE),
        (service(finalizers=OURS, deleted=True), False, False, True, Step.IGNORE),
        (service(finalizers=OURS, deleted=True), True, False, True, Step.CLEAN_UP),
        (service(finalizers=("other/one",), deleted=True), True, True, True, Step.IGNORE),
        (service("ClusterIP"), False, False, True, Step.IGNORE),
        (service("ClusterIP", finalizers=OURS), False, False, True, Step.CLEAN_UP),
        (service("ClusterIP", finalizers=OURS), False, False, False, Step.IGNORE),
        (service("ClusterIP", finalizers=OURS), False, True, False, Step.CLEAN_UP),
        (service("ClusterIP", finalizers=OURS, conditions=(DONE,)), False, False, False, Step.CLEAN_UP),
        (service("ClusterIP", conditions=(FOREIGN,)), False, False, False, Step.IGNORE),
    ],
    ids=[
        "new", "known", "of-another-class", "of-another-class-deleted", "deleted", "deleted-and-cleaned-up",
        "never-was-one", "left-after-a-crash", "left-perhaps-another-controllers", "left", "left-with-our-condition",
        "with-a-foreign-condition",
    ],
)  # fmt: skip
def test_the_step_for_a_service(seen: Service, owned: bool, remembered: bool, has_default: bool, step: Step) -> None:
    assert decide(seen, owned=owned, remembered=remembered, has_default=has_default) is step


def test_other_finalizers_stay() -> None:
    seen = service(finalizers=("other/one",))
    both = ["other/one", LOAD_BALANCER_CLEANUP]
    assert add_finalizer(seen) == {"metadata": {"resourceVersion": "7", "finalizers": both}}
    assert remove_finalizer(service(finalizers=tuple(both)))["metadata"]["finalizers"] == ["other/one"]
    assert remove_finalizer(service(finalizers=OURS))["metadata"]["finalizers"] is None


def test_a_new_address_is_shown_with_its_mode_and_condition() -> None:
    assert status_patch(service(conditions=(FOREIGN,)), SHOWN, DONE, NOW) == {
        "metadata": {"resourceVersion": "7"},
        "status": {
            "loadBalancer": {"ingress": [{"ip": "172.29.7.200", "ipMode": "VIP"}]},
            "conditions": [
                {"type": "LoadBalancerPortsError", "status": "False", "reason": "Fine", "lastTransitionTime": BEFORE},
                {
                    "type": READY,
                    "status": "True",
                    "reason": "Ensured",
                    "message": "the load balancer is 172.29.7.200",
                    "lastTransitionTime": NOW,
                },
            ],
        },
    }


def with_time(condition: Condition, moment: str) -> Condition:
    return Condition(
        type=condition.type,
        status=condition.status,
        reason=condition.reason,
        message=condition.message,
        last_transition_time=moment,
    )


def test_nothing_is_written_twice() -> None:
    seen = service(shown=SHOWN, conditions=(with_time(DONE, BEFORE),))
    assert status_patch(seen, SHOWN, DONE, NOW) is None


def test_transition_time_moves_with_the_status_alone() -> None:
    seen = service(conditions=(with_time(WAITING, BEFORE),))
    other_words = Condition(type=READY, status="False", reason="AddressInUse", message="held by another")
    patch = status_patch(seen, LoadBalancerStatus(), other_words, NOW)
    assert patch is not None
    assert patch["status"]["conditions"][0]["lastTransitionTime"] == BEFORE
    served = status_patch(seen, SHOWN, DONE, NOW)
    assert served is not None
    assert served["status"]["conditions"][0]["lastTransitionTime"] == NOW


def test_cleaning_up_takes_the_address_and_the_condition_away() -> None:
    seen = service("ClusterIP", shown=SHOWN, conditions=(DONE, FOREIGN))
    patch = status_patch(seen, LoadBalancerStatus(), None, NOW)
    assert patch is not None
    assert patch["status"]["loadBalancer"] == {"ingress": None}
    assert [c["type"] for c in patch["status"]["conditions"]] == ["LoadBalancerPortsError"]

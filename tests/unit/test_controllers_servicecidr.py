"""A ServiceCIDR is ready, and goes once no address needs it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from kubesvc.api.labels import SERVICE_CIDR_FINALIZER
from kubesvc.api.networking import ServiceCIDR
from kubesvc.controllers.servicecidr.plan import Plan, plan
from support.objects import CREATED, make

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GRACE = 10.0
USED = [ip_address("10.97.0.7")]


def cidr(name: str, *cidrs: str, going: bool = False, finalizers: tuple[str, ...] = (SERVICE_CIDR_FINALIZER,)):
    meta = {"namespace": "", "finalizers": list(finalizers)}
    if going:
        meta["deletionTimestamp"] = CREATED
    ready = {"type": "Ready", "status": "True", "message": "Kubernetes Service CIDR is ready"}
    return make(ServiceCIDR, name, meta, spec={"cidrs": list(cidrs)}, status={"conditions": [ready]})


def test_a_new_one_gets_its_finalizer_and_is_ready() -> None:
    new = make(ServiceCIDR, "more", {"finalizers": ["mine"]}, spec={"cidrs": ["10.97.0.0/24"]})
    decided = plan(new, [], [], NOW, GRACE)
    assert decided.patch is not None
    assert decided.patch["metadata"]["finalizers"] == ["mine", SERVICE_CIDR_FINALIZER]
    assert decided.status is not None
    (ready,) = decided.status["status"]["conditions"]
    assert (ready["status"], ready["message"]) == ("True", "Kubernetes Service CIDR is ready")
    assert plan(cidr("more", "10.97.0.0/24"), [], USED, NOW, GRACE) == Plan(), "then nothing more is written"


def test_deletion_waits_for_the_address_only_it_covers() -> None:
    """In use: not ready, with the reason; covered by another that stays: free to go after the grace."""
    going = cidr("more", "10.97.0.0/24", going=True)
    late = NOW + timedelta(seconds=GRACE)
    decided = plan(going, [cidr("kubernetes", "10.96.0.0/16")], USED, late, GRACE)
    assert (decided.patch, decided.wait) == (None, None)
    assert decided.status is not None
    (ready,) = decided.status["status"]["conditions"]
    assert (ready["status"], ready["reason"]) == ("False", "Terminating")
    assert ready["message"].startswith("There are still IPAddresses referencing the ServiceCIDR")

    also_going = cidr("wide", "10.97.0.0/16", going=True)
    assert plan(going, [also_going], USED, late, GRACE).status is not None, "another that goes too doesn't count"

    wide = cidr("wide", "10.97.0.0/16")
    assert plan(going, [wide], USED, NOW, GRACE) == Plan(wait=GRACE)
    decided = plan(going, [wide], USED, late, GRACE)
    assert decided.patch is not None
    assert decided.patch["metadata"]["finalizers"] is None


def test_somebody_elses_finalizer_is_theirs_to_take_away() -> None:
    going = cidr("more", "10.97.0.0/24", "fd00::/112", going=True, finalizers=(SERVICE_CIDR_FINALIZER, "mine"))
    decided = plan(going, [], [ip_address("fd01::1")], NOW + timedelta(seconds=GRACE), GRACE)
    assert decided.patch is not None
    assert decided.patch["metadata"]["finalizers"] == ["mine"]
    assert plan(cidr("more", "10.97.0.0/24", going=True, finalizers=("mine",)), [], USED, NOW, GRACE) == Plan()

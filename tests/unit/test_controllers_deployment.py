"""The story of a Deployment: first rollout, update within its bounds, undo, scaling, pause, deadline, history."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from kubesvc.api.apps import Deployment, ReplicaSet
from kubesvc.api.labels import DEPLOYMENT_REVISION, POD_TEMPLATE_HASH
from kubesvc.api.meta import parse_time
from kubesvc.controllers import templates
from kubesvc.controllers.deployment import rolling, status, template
from kubesvc.controllers.deployment.plan import Plan, plan
from kubesvc.controllers.readiness import condition
from support.objects import deployment, replica_set

NOW = parse_time("2026-01-01T01:00:00Z")


@dataclass
class World:
    """A Deployment and its ReplicaSets: `step` carries out one plan, `settle` lets every pod become available."""

    deployment: Deployment
    sets: dict[str, ReplicaSet] = field(default_factory=dict)
    now: datetime = NOW

    def step(self) -> Plan:
        self.now += timedelta(seconds=1)
        decided = plan(self.deployment, list(self.sets.values()), self.now)
        if decided.create:
            tree = decided.create
            tree["metadata"] |= {"uid": f"uid-{tree['metadata']['name']}", "generation": 1}
            tree["metadata"]["creationTimestamp"] = status.format_time(self.now)
            made = msgspec.convert(tree, ReplicaSet)
            self.sets[made.name] = made
        for name, noted in decided.annotate.items():
            rs = self.sets[name]
            meta = msgspec.structs.replace(rs.metadata, annotations=rs.metadata.annotations | noted)
            self.sets[name] = msgspec.structs.replace(rs, metadata=meta)
        for name, size in decided.resize.items():
            rs = self.sets[name]
            self.sets[name] = msgspec.structs.replace(rs, spec=msgspec.structs.replace(rs.spec, replicas=size))
        for rs in decided.delete:
            del self.sets[rs.name]
        self.deployment = msgspec.structs.replace(self.deployment, status=decided.status)
        if decided.revision:
            noted = self.deployment.metadata.annotations | {DEPLOYMENT_REVISION: decided.revision}
            meta = msgspec.structs.replace(self.deployment.metadata, annotations=noted)
            self.deployment = msgspec.structs.replace(self.deployment, metadata=meta)
        return decided

    def settle(self) -> None:
        for name, rs in self.sets.items():
            n = rs.spec.replicas
            counts = type(rs.status)(
                replicas=n, ready_replicas=n, available_replicas=n, observed_generation=rs.metadata.generation
            )
            self.sets[name] = msgspec.structs.replace(rs, status=counts)

    def change(self, **spec: Any) -> None:
        meta = msgspec.structs.replace(self.deployment.metadata, generation=self.deployment.metadata.generation + 1)
        changed = msgspec.structs.replace(self.deployment.spec, **spec)
        self.deployment = msgspec.structs.replace(self.deployment, metadata=meta, spec=changed)

    def roll(self, least: int, most: int) -> None:
        """Steps until nothing changes; at no time fewer pods available or more in all than asked for."""
        for _ in range(50):
            decided = self.step()
            assert sum(rs.spec.replicas for rs in self.sets.values()) <= most
            assert sum(min(rs.spec.replicas, rs.status.available_replicas) for rs in self.sets.values()) >= least
            self.settle()
            if not decided.create and not decided.resize:
                self.step()
                return
        raise AssertionError("the rollout never ended")

    @property
    def sizes(self) -> dict[str, int]:
        """Revision -> replicas."""
        return {rs.metadata.annotations[DEPLOYMENT_REVISION]: rs.spec.replicas for rs in self.sets.values()}

    def reason(self, type_: str = "Progressing") -> str:
        found = condition(self.deployment.status.conditions, type_)
        return f"{found.status} {found.reason}" if found else ""


def rolled_out(replicas: int = 4, **spec: Any) -> World:
    world = World(deployment(replicas, **spec))
    world.roll(0, replicas)
    return world


def test_first_rollout() -> None:
    """A ReplicaSet named by the template's hash, revision 1, and conditions in upstream's words."""
    world = World(deployment(3))
    created = world.step().create
    assert created is not None
    hash_ = created["metadata"]["labels"][POD_TEMPLATE_HASH]
    assert created["metadata"]["name"] == f"web-{hash_}"
    assert created["spec"]["selector"]["matchLabels"] == {"app": "web", POD_TEMPLATE_HASH: hash_}
    assert created["spec"]["template"]["metadata"]["labels"][POD_TEMPLATE_HASH] == hash_
    assert created["spec"]["replicas"] == 3
    assert (world.reason(), world.reason("Available")) == (
        "True NewReplicaSetCreated",
        "False MinimumReplicasUnavailable",
    )
    world.settle()
    world.step()
    assert (world.reason(), world.reason("Available")) == (
        "True NewReplicaSetAvailable",
        "True MinimumReplicasAvailable",
    )
    found = world.deployment.status
    assert (found.replicas, found.updated_replicas, found.available_replicas, found.unavailable_replicas) == (
        3,
        3,
        3,
        0,
    )
    assert world.deployment.metadata.annotations[DEPLOYMENT_REVISION] == "1"
    before = world.deployment.status
    world.step()
    assert world.deployment.status == before, "nothing is written when nothing changed"


@pytest.mark.parametrize(
    ("surge", "unavailable", "least", "most"),
    [("25%", "25%", 3, 5), (1, 0, 4, 5), (0, 1, 3, 4), ("100%", 0, 4, 8), (0, 0, 3, 4)],
)
def test_an_update_stays_within_its_bounds(surge: int | str, unavailable: int | str, least: int, most: int) -> None:
    """maxSurge rounds up, maxUnavailable down; both zero means one unavailable."""
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    world = rolled_out(strategy=strategy)
    world.change(template=deployment(4, "2").spec.template)
    world.roll(least, most)
    assert world.sizes == {"1": 0, "2": 4}
    assert world.reason() == "True NewReplicaSetAvailable"


def test_unhealthy_old_pods_go_first() -> None:
    old = replica_set("old", 5, available=3)
    new = replica_set("new", 1, available=0, version="2")
    assert rolling.rolling_step(deployment(5, "2", strategy=FIXED), new, [old]) == {"old": 4} | {}
    sick = replica_set("sick", 2, available=0, version="0")
    healthy = replica_set("healthy", 4)
    step = rolling.rolling_step(deployment(5, "2", strategy=FIXED), replica_set("new", 0, version="2"), [healthy, sick])
    assert step == {"sick": 0}


FIXED = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}


def test_recreate_waits_for_the_last_old_pod() -> None:
    world = rolled_out(2, strategy={"type": "Recreate"})
    world.change(template=deployment(2, "2").spec.template)
    assert list(world.step().resize.values()) == [0]
    old = list(world.sets.values())
    assert plan(world.deployment, old, NOW, old_pods_left=True).create is None
    world.settle()
    assert world.step().create is not None
    assert world.sizes == {"1": 0, "2": 2}


def test_undo_gives_the_old_replica_set_the_newest_revision() -> None:
    """`kubectl rollout undo` writes the old template back."""
    world = rolled_out()
    first = world.deployment.spec.template
    world.change(template=deployment(4, "2").spec.template)
    world.roll(3, 5)
    world.change(template=first)
    world.roll(3, 5)
    assert world.sizes == {"3": 4, "2": 0}
    newest = next(rs for rs in world.sets.values() if rs.spec.replicas)
    assert newest.metadata.annotations[template.REVISION_HISTORY] == "1"
    assert world.deployment.metadata.annotations[DEPLOYMENT_REVISION] == "3"


def test_scaling_one_and_scaling_in_the_middle_of_a_rollout() -> None:
    world = rolled_out()
    world.change(replicas=6)
    assert list(world.step().resize.values()) == [6]
    world.settle()
    assert world.step().resize == {}
    world.change(replicas=0)
    assert list(world.step().resize.values()) == [0]

    world = rolled_out(10, strategy={"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}})
    world.change(template=deployment(10, "2").spec.template)
    world.step()
    world.step()
    assert world.sizes == {"1": 8, "2": 3}
    world.change(replicas=15)
    world.step()
    assert world.sizes["1"] + world.sizes["2"] == 18, "replicas and surge, in proportion"
    assert world.sizes["1"] > world.sizes["2"]
    world.settle()
    world.roll(13, 18)
    assert world.sizes == {"1": 0, "2": 15}


def test_a_paused_deployment_scales_but_does_not_roll() -> None:
    world = rolled_out(2)
    world.change(paused=True, template=deployment(2, "2").spec.template)
    decided = world.step()
    assert (decided.create, decided.resize, world.reason()) == (None, {}, "Unknown DeploymentPaused")
    world.change(replicas=3)
    world.step()
    assert world.sizes == {"1": 3}
    world.change(paused=False)
    world.step()
    assert world.reason() == "True NewReplicaSetCreated"


def test_a_rollout_that_makes_no_progress_is_late() -> None:
    world = World(deployment(1, progressDeadlineSeconds=10))
    assert world.step().again == 10.0
    world.step()
    assert world.reason() == "True NewReplicaSetCreated"
    world.now += timedelta(seconds=10)
    world.step()
    assert world.reason() == "False ProgressDeadlineExceeded"
    world.settle()
    world.step()
    assert world.reason() == "True NewReplicaSetAvailable"


def test_old_revisions_beyond_the_limit_go() -> None:
    world = rolled_out(1, revisionHistoryLimit=1)
    for version in ("2", "3", "4"):
        world.change(template=deployment(1, version).spec.template)
        world.roll(1, 2)
    assert sorted(world.sizes) == ["3", "4"]


def test_a_name_taken_by_another_template_hashes_again() -> None:
    one = deployment(1)
    assert templates.fingerprint(one.spec.template, 0) != templates.fingerprint(one.spec.template, 1)
    labelled = replica_set("rs", 1).spec.template
    labelled = {**labelled, "metadata": {"labels": {"app": "web", POD_TEMPLATE_HASH: "x"}, "creationTimestamp": None}}
    assert templates.canonical(labelled) == templates.canonical(one.spec.template)
    assert templates.canonical(deployment(1, "2").spec.template) != templates.canonical(one.spec.template)


def test_a_replica_sets_failure_shows_on_its_deployment() -> None:
    failed = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}
    rs = replica_set("web-1", 1, available=0, conditions=[failed])
    found = condition(plan(deployment(1), [rs], NOW).status.conditions, "ReplicaFailure")
    assert found is not None
    assert (found.reason, found.message) == ("FailedCreate", "quota")


def test_status_on_the_wire_leaves_zero_counts_out() -> None:
    wire = status.patch(plan(deployment(1), [], NOW).status)["status"]
    assert wire["readyReplicas"] is None
    assert wire["observedGeneration"] == 1

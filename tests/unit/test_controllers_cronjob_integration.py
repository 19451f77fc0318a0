"""CronJobs against a real API server in this process, under a clock that the tests turn; an agent ends the pods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kubesvc.api.batch import SCHEDULED, CronJob, Job
from kubesvc.api.meta import JSON, format_time, parse_time
from kubesvc.api.registry import CRON_JOB, EVENT, JOB, POD
from kubesvc.client.session import Session
from kubesvc.controllers.config import ControllersConfig
from kubesvc.controllers.cronjob.alarm import LOOK, Alarm
from kubesvc.controllers.cronjob.plan import job_tree
from kubesvc.controllers.main import run
from support.agents import ENDS, Agent, add_node
from support.apiserver import local_session
from support.watching import DEADLINE, Event, Following, Watcher, following, running, watching

YEAR = 365 * 86400.0
CONFIG = ControllersConfig(node_grace=100 * YEAR)  # nobody renews the nodes' Leases
DAY = timedelta(days=1)


class Clock:
    """The wall's and the loop's, which are turned together."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = timedelta()
        loop = asyncio.get_running_loop()
        time = loop.time
        monkeypatch.setattr(loop, "time", lambda: time() + self.ahead.total_seconds())

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def turn(self, to: datetime) -> None:
        self.ahead += to - self.now()


@dataclass
class Cluster:
    session: Session
    see: Watcher
    events: Following[Event]
    clock: Clock
    made: set[str] = field(default_factory=set)  # names of all Jobs there ever were

    async def add(self, phase: str = "", **spec: Any) -> CronJob:
        """A CronJob, daily and long due unless said otherwise, whose pods end in `phase`."""
        template: JSON = {"metadata": {"annotations": {ENDS: phase} if phase else {}}, "spec": POD_SPEC}
        whole = {"schedule": "0 0 * * *", "jobTemplate": {"spec": {"template": template}}, **spec}
        await self.session.create(CRON_JOB, {"metadata": META, "spec": whole})
        found: CronJob = await self.see.until(lambda: self.see.get(CRON_JOB, "tidy"), "the CronJob")
        return found

    async def change(self, **spec: Any) -> None:
        await self.session.patch(CRON_JOB, "default", "tidy", {"spec": spec})

    @property
    def cron_job(self) -> CronJob:
        found: CronJob = self.see.get(CRON_JOB, "tidy")
        return found

    def jobs(self, type_: str = "") -> list[str]:
        """Names of the Jobs with that condition."""
        found: list[Job] = self.see.all(JOB)
        return [j.name for j in found if not type_ or type_ in {c.type for c in j.status.conditions}]

    async def acted(self, due: datetime) -> str:
        """Waits until the CronJob has made a Job for `due`; its name."""
        await self.see.until(lambda: self.cron_job.status.last_schedule_time == format_time(due), f"a Job for {due}")
        name = f"tidy-{int(due.timestamp()) // 60}"
        await self.see.until(lambda: self.see.get(JOB, name), name)
        return name

    async def told(self, reason: str) -> str:
        """An Event about the CronJob."""

        def said() -> Event | None:
            about = (e for e in self.events.seen if e.involved_object.name == "tidy")
            return next((e for e in about if e.reason == reason), None)

        event = await self.events.until(said, f"an event {reason}")
        assert event is not None
        return f"{event.type}: {event.message}"


META = {"name": "tidy", "namespace": "default"}
POD_SPEC = {"containers": [{"name": "c", "image": "host"}], "restartPolicy": "Never"}


@asynccontextmanager
async def controlled(cluster: Cluster) -> AsyncIterator[None]:
    async with running(run(cluster.session, CONFIG, cluster.clock.now)):
        yield


@pytest.fixture
async def idle(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    """A node and its agent, without controllers."""
    clock = Clock(monkeypatch)
    async with (
        local_session() as session,
        watching(session, CRON_JOB, JOB, POD) as see,
        following(session, EVENT, Event) as events,
    ):
        await add_node(session, "n1")
        cluster = Cluster(session, see, events, clock)
        see.of["Job"].on_change(lambda old, new: cluster.made.add(new.name) if new is not None else None)
        async with running(Agent(session).run()):
            yield cluster


@pytest.fixture
async def cluster(idle: Cluster) -> AsyncIterator[Cluster]:
    async with controlled(idle):
        yield idle


def midnight(cluster: Cluster) -> datetime:
    """One that is more than a day ahead."""
    return (cluster.clock.now() + 2 * DAY).replace(hour=0, minute=0, second=0, microsecond=0)


async def test_a_job_a_day_and_what_became_of_them(cluster: Cluster) -> None:
    """Made when it is due, counted while it runs, recorded when it has succeeded, forgotten when there are others."""
    due = midnight(cluster)
    await cluster.add("Succeeded", successfulJobsHistoryLimit=1)
    names = []
    for _ in range(2):
        cluster.clock.turn(due + timedelta(seconds=1))
        names.append(await cluster.acted(due))
        await cluster.see.until(lambda name=names[-1]: cluster.jobs("Complete") == [name], "it alone, complete")
        job: Job = cluster.see.get(JOB, names[-1])
        await cluster.see.until(
            lambda job=job: (
                not cluster.cron_job.status.active
                and cluster.cron_job.status.last_successful_time == job.status.completion_time
            ),
            "its success recorded",
        )
        assert parse_time(job.metadata.annotations[SCHEDULED]) == due
        due += DAY
    assert cluster.made == set(names)
    assert await cluster.told("SuccessfulCreate") == f"Normal: Created job {names[0]}"
    assert await cluster.told("SawCompletedJob") == f"Normal: Saw completed job: {names[0]}, condition: Complete"
    assert await cluster.told("SuccessfulDelete") == f"Normal: Deleted job {names[0]}"


async def test_a_job_that_still_runs_holds_the_next_back_or_makes_way(cluster: Cluster) -> None:
    due = midnight(cluster)
    await cluster.add(concurrencyPolicy="Forbid")
    cluster.clock.turn(due + timedelta(seconds=1))
    first = await cluster.acted(due)
    await cluster.see.until(lambda: [r.name for r in cluster.cron_job.status.active] == [first], "one active")
    due += DAY
    cluster.clock.turn(due + timedelta(seconds=1))
    assert (await cluster.told("JobAlreadyActive")).startswith("Normal: Not starting job because prior execution is")
    assert cluster.made == {first}
    await cluster.change(concurrencyPolicy="Replace")
    second = await cluster.acted(due)
    await cluster.see.until(lambda: cluster.jobs() == [second], "the first is gone")
    await cluster.see.until(lambda: [r.name for r in cluster.cron_job.status.active] == [second], "the other active")


async def test_a_restart_misses_nothing_and_makes_nothing_twice(idle: Cluster) -> None:
    """Due while nobody looks; then made, but not recorded, by controllers that are gone."""
    due = midnight(idle)
    await idle.add()
    idle.clock.turn(due + timedelta(seconds=1))
    async with controlled(idle):
        first = await idle.acted(due)
    due += DAY
    idle.clock.turn(due + timedelta(seconds=1))
    second = (await idle.session.create(JOB, job_tree(idle.cron_job, due)))["metadata"]["name"]
    async with controlled(idle):
        assert await idle.acted(due) == second
        active = {r.name for r in idle.cron_job.status.active}
        await idle.session.delete(CRON_JOB, "default", "tidy")
        await idle.see.until(lambda: not idle.see.all(JOB) and not idle.see.all(POD), "its Jobs and pods gone")
    assert active == idle.made == {first, second}


async def test_another_schedule_holds_from_now_on(cluster: Cluster) -> None:
    """What it would have asked for before isn't made up for; what one that was suspended missed last is."""
    due = midnight(cluster)
    await cluster.add("Succeeded")
    cluster.clock.turn(due + DAY / 2)
    first = await cluster.acted(due)
    await cluster.see.until(lambda: cluster.jobs("Complete"), "it complete")
    await cluster.change(schedule="0 6 * * *", successfulJobsHistoryLimit=0)
    await cluster.see.until(lambda: not cluster.jobs(), "the change seen: no history")
    due += DAY * 5 / 4
    cluster.clock.turn(due + timedelta(seconds=1))
    second = await cluster.acted(due)
    await cluster.change(suspend=True)
    cluster.clock.turn(due + 4 * DAY + timedelta(seconds=1))
    await cluster.change(suspend=False)
    assert cluster.made == {first, second, await cluster.acted(due + 4 * DAY)}


async def test_a_job_that_somebody_makes_of_it_is_its_own(cluster: Cluster) -> None:
    """As of kubectl create job --from: it isn't among the active, but its success and its place in history count."""
    found = await cluster.add("Succeeded", successfulJobsHistoryLimit=0)
    tree = job_tree(found, cluster.clock.now())
    tree["metadata"]["name"] = "by-hand"
    await cluster.session.create(JOB, tree)
    await cluster.see.until(lambda: cluster.cron_job.status.last_successful_time, "its success recorded")
    await cluster.see.until(lambda: not cluster.jobs(), "no history")
    assert (await cluster.told("UnexpectedJob")).endswith("did not create or forgot: by-hand")


async def test_a_template_that_is_refused_is_told(cluster: Cluster) -> None:
    due = midnight(cluster)
    template = {"metadata": {"labels": {"a": "no label"}}, "spec": {"template": {"spec": POD_SPEC}}}
    await cluster.add(jobTemplate=template)
    cluster.clock.turn(due + timedelta(seconds=1))
    assert 'Error creating job: Job.batch "tidy-' in await cluster.told("FailedCreate")
    await cluster.change(jobTemplate={"metadata": {"labels": {"a": "label"}}})
    await cluster.acted(due)


async def test_there_is_one_timer_for_what_is_due_first_and_none_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks at the clock once a minute, so that one that is set, or a machine that has slept, delays nothing."""
    loop, clock, timers, rung = asyncio.get_running_loop(), Clock(monkeypatch), [], asyncio.Queue[str]()
    later, start = loop.call_later, clock.now()
    wall = start

    def call_later(delay: float, call: Any) -> asyncio.TimerHandle:
        timers.append(later(delay, call))
        return timers[-1]

    monkeypatch.setattr(loop, "call_later", call_later)
    alarm: Alarm[str] = Alarm(lambda: wall, rung.put_nowait)
    alarm.set("nobody", None)
    assert timers == []
    alarm.set("second", start + 2 * DAY)
    alarm.set("first", start + DAY)
    alarm.set("third", start + 3 * DAY)
    alarm.set("never", start + DAY)
    alarm.set("never", None)
    assert [t.cancelled() for t in timers] == [True, False]
    wall = start + 2 * DAY  # somebody set it
    clock.ahead = timedelta(seconds=LOOK)
    async with asyncio.timeout(DEADLINE):
        assert {await rung.get(), await rung.get()} == {"first", "second"}
    assert rung.empty()
    assert [t.cancelled() for t in timers if t.when() > loop.time()] == [False]

"""What every controller is handed: the shared caches, the writer, the recorder, the session, the clock, the config."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from kubesvc.client.events import Recorder
from kubesvc.client.session import Session
from kubesvc.controllers.caches import Caches
from kubesvc.controllers.config import ControllersConfig
from kubesvc.controllers.writer import Writer


def utc_now() -> datetime:
    return datetime.now(UTC)


class Context(msgspec.Struct, frozen=True):
    session: Session
    config: ControllersConfig
    caches: Caches
    writer: Writer
    recorder: Recorder
    now: Callable[[], datetime]


class Controller(Protocol):
    """Made with a Context, it subscribes to the caches; `run` works its queue until cancelled."""

    async def run(self) -> None: ...


def make_context(session: Session, config: ControllersConfig, now: Callable[[], datetime] = utc_now) -> Context:
    caches = Caches(session)
    return Context(session, config, caches, Writer(session, caches), Recorder(session, now=now), now)

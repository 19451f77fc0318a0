"""An API server in the test's own loop, and sessions of whom one likes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kubesvc.apiserver.server import ApiServer
from kubesvc.client.session import Session
from kubesvc.client.transport import LocalTransport, User
from support.apiserver import ADMIN, Open, local_server


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with local_server() as server:
        yield server


@pytest.fixture
def of(server: ApiServer) -> Open:
    return lambda name, *groups: Session(LocalTransport(server.handler, User(name, groups)))


@pytest.fixture
def admin(of: Open) -> Session:
    return of(ADMIN.name, *ADMIN.groups)

"""A node agent with an API of its own, for the tests that want nothing special of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.node import NodeBed, node_bed


@pytest.fixture
async def bed() -> AsyncIterator[NodeBed]:
    async with node_bed() as made:
        await made.start_agent()
        yield made

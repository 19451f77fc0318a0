"""The same histories as in the unit tests, through the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from kubesvc.kernel.nft.connection import Connection
from kubesvc.proxy.fake import FakeBackend
from kubesvc.proxy.nftables import NftablesBackend
from support.histories import HISTORIES, NODE_IPS, RANGES, held, live
from support.net import Lab


@pytest.fixture(scope="module")
def nft() -> Iterator[Connection]:
    with Lab("histories") as lab:
        made = lab.namespace("node").call(Connection)
        assert isinstance(made, Connection)
        yield made
        made.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=HISTORIES)
def test_the_kernel_ends_as_a_start_from_nothing(nft: Connection, history: list[Any]) -> None:
    """What it reads back equals a fresh sync of the fake; each history begins on what the last one left."""
    backend = NftablesBackend(nft, RANGES)
    again = live(history, backend)
    fresh = FakeBackend(RANGES, NODE_IPS)
    fresh.resync(again().everything())
    assert held(nft) == held(fresh.nft)
    backend.resync(again().everything())
    assert held(nft) == held(fresh.nft)

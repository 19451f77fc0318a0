"""Whatever happened on the way, what is programmed is what the objects of now ask for."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings

from kubesvc.proxy.fake import FakeBackend
from support.histories import HISTORIES, NODE_IPS, RANGES, held, live


@settings(max_examples=300, deadline=None)
@given(HISTORIES)
def test_a_history_ends_as_a_start_from_nothing(history: list[Any]) -> None:
    """Elements read back after changes in any order equal those of a fresh sync, and those of a resync on top."""
    backend = FakeBackend(RANGES, NODE_IPS)
    again = live(history, backend)
    fresh = FakeBackend(RANGES, NODE_IPS)
    fresh.resync(again().everything())
    assert held(backend.nft) == held(fresh.nft)
    backend.resync(again().everything())
    assert held(backend.nft) == held(fresh.nft)

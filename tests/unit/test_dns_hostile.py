"""A server that is sent what nobody should send: it goes on, answers whom it should, never more than is asked."""

from __future__ import annotations

import asyncio

import dns.rcode
import pytest

from support.dns_hostile import bombard, corpus, packets
from support.dns_serving import SVC, serving
from support.dns_zone import texts


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_no_packet_breaks_the_server(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """The corpus and thousands of mutated packets: no wrong id, no reply beyond the EDNS size, nothing logged."""
    async with serving() as one:
        one.silence()  # names outside the zone are somebody else's test
        sent, replies, wrong = await asyncio.to_thread(bombard, one.port, packets(seed, 4000))
        assert wrong == []
        assert sent == 4000 + len(corpus())
        assert replies > sent / 4
        assert [one.getMessage() for one in caplog.records if one.levelname == "ERROR"] == []
        assert texts(await one.udp("web." + SVC)) == ["A 10.96.0.20"]
        assert (await one.tcp("gone." + SVC)).rcode() == dns.rcode.NXDOMAIN

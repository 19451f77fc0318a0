"""Every row of the DNS contract, against the pure code and against the running server, read by dnspython and by dig."""

from __future__ import annotations

import asyncio

import dns.flags
import dns.message
import pytest

from kubesvc.dns.answers import Answers
from support.dns_serving import serving
from support.dns_table import IDS, ROWS, Row, check, cluster, lines
from support.dns_zone import ask

SECTIONS = {"ANSWER": "answer", "AUTHORITY": "authority", "ADDITIONAL": "additional"}


@pytest.fixture(scope="module")
def answers() -> Answers:
    return cluster()


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_row_of_the_contract(answers: Answers, row: Row) -> None:
    """What the pure code says."""
    reply = ask(answers, row.name, row.type, payload=1232)
    check(row, reply)
    assert reply.flags & dns.flags.AA


async def test_running_server_says_the_same_over_udp_and_tcp() -> None:
    """Every row over both transports."""
    async with serving(answers=cluster()) as one:
        for row in ROWS:
            check(row, await one.udp(row.name, row.type, payload=1232))
            check(row, await one.tcp(row.name, row.type))


async def test_dig_reads_the_same() -> None:
    """Every row, parsed by somebody else's code."""
    async with serving(answers=cluster()) as one:
        for row in ROWS:
            text = await dig(one.port, row.name, row.type)
            assert f"status: {row.rcode}" in text, text
            found = {title: sorted(section(text, title)) for title in SECTIONS}
            assert found["ANSWER"] == sorted(row.answer), text
            assert found["ADDITIONAL"] == sorted(row.additional), text
            assert [line.split(" SOA ")[0] for line in found["AUTHORITY"]] == ([row.soa] if row.soa else []), text


async def dig(port: int, *words: str) -> str:
    command = ["dig", "+nocmd", "+tries=1", "+time=60", "@127.0.0.1", "-p", str(port), *words]
    made = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await made.communicate()
    assert made.returncode == 0, out.decode()
    return out.decode()


def section(text: str, title: str) -> list[str]:
    """A section of dig's output, as "NAME TYPE DATA"."""
    _, _, rest = text.partition(f";; {title} SECTION:\n")
    found = []
    for line in rest.split("\n\n")[0].splitlines():
        name, _, _, kind, data = line.split(None, 4)
        found.append(f"{name} {kind} {data}")
    return found


def test_before_the_caches_have_synced_every_name_of_ours_is_servfail(answers: Answers) -> None:
    """Forward and reverse: nobody is to remember a wrong answer."""
    waiting = cluster()
    waiting.synced = False
    for row in ROWS:
        reply = ask(waiting, row.name, row.type)
        assert dns.rcode.to_text(reply.rcode()) == "SERVFAIL", row
        assert lines(reply, "authority") == ()


@pytest.mark.parametrize(
    ("mode", "known", "unknown"),
    [("disabled", "NXDOMAIN", "NXDOMAIN"), ("insecure", "NOERROR", "NOERROR"), ("verified", "NOERROR", "NXDOMAIN")],
)
def test_pod_records_in_three_modes(mode: str, known: str, unknown: str) -> None:
    """disabled: none; insecure: any address; verified: a pod's."""
    found = cluster(pod_mode=mode)
    found.set_pod("default", bytes([10, 244, 1, 5]), exists=True)
    for label, expected in (("10-244-1-5", known), ("10-244-1-6", unknown)):
        reply = ask(found, f"{label}.default.pod.cluster.local.")
        assert dns.rcode.to_text(reply.rcode()) == expected

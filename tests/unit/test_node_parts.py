"""The smaller decisions of a node: addresses, routes, log lines, exec frames, who may ask."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import msgspec
import pytest

from kubesvc.api.errors import BadRequest, Forbidden, Unauthorized
from kubesvc.api.meta import ObjectMeta
from kubesvc.api.nodes import Node, NodeAddress, NodeSpec, NodeStatus
from kubesvc.node import attach, channels, logs, routes, server
from kubesvc.node.channels import EndOfInput, Input, Resize
from kubesvc.node.clients import Wanted
from kubesvc.node.ipam import AddressPool, Exhausted
from kubesvc.node.logs import Options


class Silent:
    """A client that sends nothing and is sent nothing."""

    gone = False
    sent = 0
    sending = False

    async def receive(self) -> None:
        raise AssertionError("nobody asks it")

    async def send(self, channel: int, payload: bytes) -> None:
        raise AssertionError(payload)


@pytest.mark.parametrize("left_behind", [False, True], ids=["no socket", "a socket that nobody listens on"])
async def test_attaching_to_what_has_just_ended_says_so(left_behind: bool, tmp_path: Path) -> None:
    """Found running, ended since."""
    if left_behind:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as conmons:
            conmons.bind(str(tmp_path / "attach"))
    status = msgspec.json.decode(await attach.serve(Silent(), tmp_path, Wanted()))
    assert status["message"].endswith("the container has ended; `kubectl logs` has what it printed")


def test_addresses_are_given_once_kept_and_rest_before_they_are_used_again() -> None:
    pool = AddressPool(IPv4Network("10.244.1.0/29"))  # .2 to .6
    assert [str(pool.allocate(uid)) for uid in ("a", "b", "a")] == ["10.244.1.2", "10.244.1.3", "10.244.1.2"]
    pool.release("a")
    assert [str(pool.allocate(uid)) for uid in ("c", "d", "e")] == ["10.244.1.4", "10.244.1.5", "10.244.1.6"]
    assert str(pool.allocate("f")) == "10.244.1.2"
    with pytest.raises(Exhausted, match="5 pods have one"):
        pool.allocate("g")


def test_a_pod_gets_its_address_back_if_it_is_free() -> None:
    pool = AddressPool(IPv4Network("10.244.1.0/24"))
    wanted = IPv4Address("10.244.1.77")
    assert pool.allocate("a", prefer=wanted) == wanted
    assert pool.allocate("b", prefer=wanted) != wanted
    assert not pool.claim("c", IPv4Address("10.9.9.9"))
    assert not pool.claim("c", IPv4Address("10.244.1.255"))
    assert pool.held("a") == wanted


def node(name: str, cidr: str, *addresses: str) -> Node:
    status = NodeStatus(addresses=[NodeAddress(type="InternalIP", address=a) for a in addresses])
    return Node(metadata=ObjectMeta(name=name), spec=NodeSpec(pod_cidr=cidr), status=status)


def test_routes_lead_to_every_other_node_that_has_both() -> None:
    nodes = [
        node("node1", "10.244.1.0/24", "172.29.0.2"),
        node("node2", "10.244.2.0/24", "172.29.0.3"),
        node("node3", "", "172.29.0.4"),
        node("node4", "10.244.4.0/24"),
    ]
    wanted = routes.plan(nodes, "node1")
    assert wanted == {IPv4Network("10.244.2.0/24"): IPv4Address("172.29.0.3")}
    before = {
        IPv4Network("10.244.2.0/24"): IPv4Address("172.29.0.9"),
        IPv4Network("10.244.7.0/24"): IPv4Address("1.1.1.1"),
    }
    assert routes.difference(before, wanted) == (wanted, [IPv4Network("10.244.7.0/24")])
    assert routes.difference(wanted, wanted) == ({}, [])


STAMP = "2026-11-22T10:00:00.123456789+00:00"


@pytest.mark.parametrize(
    ("line", "options", "text"),
    [
        (f"{STAMP} stdout F hello\n", Options(), "hello\n"),
        (f"{STAMP} stdout P hel\n", Options(), "hel"),
        (f"{STAMP} stdout F hello\n", Options(timestamps=True), f"{STAMP} hello\n"),
        (f"{STAMP} stderr F hello\n", Options(stream="stdout"), ""),
        (f"{STAMP} stdout F \n", Options(), "\n"),
        (f"{STAMP} stdout F hello\n", Options(since=datetime(2026, 11, 22, 10, 0, 1, tzinfo=UTC)), ""),
        (f"{STAMP} stdout F hello\n", Options(since=datetime(2026, 11, 22, 10, 0, 0, tzinfo=UTC)), "hello\n"),
        ("torn line\n", Options(), ""),
    ],
)
def test_log_lines(line: str, options: Options, text: str) -> None:
    assert logs.render(line.encode(), options) == text.encode()


def write_log(path: Path, lines: int) -> None:
    path.write_text("".join(f"{STAMP} stdout F line {number}\n" for number in range(lines)))


@pytest.mark.parametrize(("tail", "first"), [(1, 4999), (3, 4997), (4000, 1000), (5000, 0), (9999, 0)])
async def test_log_tail(tmp_path: Path, tail: int, first: int) -> None:
    path = tmp_path / "0.log"
    write_log(path, 5000)
    found = b"".join([piece async for piece in logs.read(path, Options(tail=tail), asyncio.Event())])
    assert found.splitlines()[0] == f"line {first}".encode()
    assert found.endswith(b"line 4999\n")


async def test_log_limit_and_empty_tail(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    write_log(path, 10)
    assert b"".join([p async for p in logs.read(path, Options(limit=9), asyncio.Event())]) == b"line 0\nli"
    assert b"".join([p async for p in logs.read(path, Options(tail=0), asyncio.Event())]) == b""


async def test_log_follow_sees_new_lines_a_new_file_and_the_end(tmp_path: Path) -> None:
    path, ended = tmp_path / "0.log", asyncio.Event()
    write_log(path, 1)
    stream = logs.read(path, Options(follow=True), ended)
    async with asyncio.timeout(60):
        assert await anext(stream) == b"line 0\n"
        with path.open("a") as file:
            file.write(f"{STAMP} stdout F more\n")
        assert await anext(stream) == b"more\n"
        anew = tmp_path / "new"
        anew.write_text(f"{STAMP} stdout F anew\n")
        anew.rename(path)
        assert await anext(stream) == b"anew\n"
        ended.set()
        assert [piece async for piece in stream] == []


@pytest.mark.parametrize(
    ("frame", "meaning"),
    [
        (b"\x00hello", Input(b"hello")),
        (b"\x00", None),
        (b"\xff\x00", EndOfInput()),
        (b'\x04{"Width":80,"Height":24}', Resize(80, 24)),
        (b'\x04{"Width":0,"Height":0}', None),
        (b"\x04nonsense", None),
        (b"\x09x", None),
        (b"", None),
    ],
)
def test_exec_frames(frame: bytes, meaning: object) -> None:
    assert channels.parse(frame) == meaning


def test_final_status_carries_the_exit_code() -> None:
    assert msgspec.json.decode(channels.final_status(0)) == {"metadata": {}, "status": "Success"}
    failed = channels.final_status(3)
    assert msgspec.json.decode(failed)["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


def test_only_masters_with_a_certificate_may_ask() -> None:
    subject = ((("organizationName", "system:masters"),), (("commonName", "admin"),))
    server.authorize({"subject": subject})
    with pytest.raises(Unauthorized):
        server.authorize(None)
    with pytest.raises(Forbidden):
        server.authorize({"subject": ((("organizationName", "system:nodes"),),)})


def test_log_options_are_read_and_checked() -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    found = server.log_options({"tailLines": "5", "follow": "true", "sinceSeconds": "60"}, now)
    assert (found.tail, found.follow, found.since) == (5, True, datetime(2026, 11, 21, 23, 59, tzinfo=UTC))
    with pytest.raises(BadRequest, match="tailLines"):
        server.log_options({"tailLines": "many"}, now)

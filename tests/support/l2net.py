"""An Ethernet segment of our own for tests: network namespaces joined by a bridge, gone when the test ends.

node1 eth0 ──┐
node2 eth0 ──┼── br0, in a namespace of its own
client eth0 ─┘
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kubesvc.kernel import netns
from support.box import eventually


@dataclass(frozen=True)
class Member:
    """A namespace with `eth0` on the segment."""

    name: str  # as `ip netns` lists it
    address: str
    hub: str  # the namespace of the bridge
    port: str  # its end of `eth0`'s link

    @property
    def path(self) -> Path:
        return netns.named(self.name)

    @property
    def mac(self) -> str:
        return run_in(self, "cat", "/sys/class/net/eth0/address").strip()


def run_in(member: Member, *command: str) -> str:
    """The output of a command run inside the member's namespace. Raises CalledProcessError."""
    whole = ["ip", "netns", "exec", member.name, *command]
    return subprocess.run(whole, check=True, capture_output=True, text=True, timeout=60).stdout


def until_joined(*members: Member) -> None:
    """Wait until the bridge forwards what the members say: the kernel lets a port in a moment after its link is up, and
    what comes before is lost."""

    def forwards(member: Member) -> bool:
        shown = json.loads(_ip("-n", member.hub, "-json", "-details", "link", "show", member.port))
        return bool(shown[0]["linkinfo"]["info_slave_data"]["state"] == "forwarding")

    eventually(lambda: all(map(forwards, members)), what="the bridge forwards")


async def call_in(member: Member, *command: str) -> tuple[int, str]:
    """Exit status and output of a command that waits for something this process does meanwhile."""
    process = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", member.name, *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, output.decode()


@contextmanager
def segment(names: Sequence[str], network: str = "172.29.7") -> Iterator[list[Member]]:
    """Members with the addresses .1, .2, … of a /24."""
    unique = f"{os.getpid()}-{secrets.token_hex(3)}"
    hub = f"kstest-{unique}-hub"
    members = [Member(f"kstest-{unique}-{name}", f"{network}.{n}", hub, f"port{n}") for n, name in enumerate(names, 1)]
    try:
        netns.create_named(hub)
        _ip("-n", hub, "link", "add", "br0", "up", "type", "bridge")
        for member in members:
            netns.create_named(member.name)
            _ip("-n", hub, "link", "add", member.port, "type", "veth", "peer", "name", "eth0", "netns", member.name)
            _ip("-n", hub, "link", "set", member.port, "master", "br0", "up")
            _ip("-n", member.name, "address", "add", f"{member.address}/24", "dev", "eth0")
            _ip("-n", member.name, "link", "set", "eth0", "up")
        until_joined(*members)
        yield members
    finally:
        for name in (*(m.name for m in members), hub):
            netns.delete(netns.named(name))


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=60).stdout

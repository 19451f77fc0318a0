"""Scratch networks for kernel tests: namespaces with unique names, links between them, tiny servers and clients.

    with Lab("proxy") as lab:
        node, pod = lab.namespace("node"), lab.namespace("pod")
        lab.link(node, "pod1", pod, "eth0")

Names hold this process' id and random digits; leaving the `with` stops servers and removes every namespace, and with
them the links, whatever happened inside.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from kubesvc.kernel import netns

_ETH_P_ALL = 3  # linux/if_ether.h
DEADLINE = 60.0  # seconds, for anything on the wire


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace `ip netns` lists as `name`."""

    name: str
    path: Path

    def ip(self, *arguments: str) -> str:
        """Run `ip` inside; returns what it prints."""
        return run("ip", "-n", self.name, *arguments)

    def run(self, *command: str) -> str:
        """Run any program inside; returns what it prints. Raises when it fails."""
        return run("ip", "netns", "exec", self.name, *command)

    def sysctl(self, name: str, value: str) -> None:
        with netns.entered(self.path):
            (Path("/proc/sys/net") / name).write_text(value)

    def socket(self, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET) -> socket.socket:
        return netns.socket_in(self.path, family, kind)

    def socket_of(self, protocol: int, family: int) -> socket.socket:
        """A raw socket of an IP protocol."""
        with netns.entered(self.path):
            return socket.socket(family, socket.SOCK_RAW, protocol)

    def packets(self, link: str) -> socket.socket:
        """All packets of a link, both ways, from their network header on."""
        with netns.entered(self.path):
            found = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
            found.bind((link, _ETH_P_ALL))
        found.settimeout(DEADLINE)
        return found

    def call(self, function: Callable[[], object]) -> object:
        """Run `function` with this thread inside the namespace."""
        with netns.entered(self.path):
            return function()


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}"
    return done.stdout


class Lab:
    """Makes namespaces and takes them away."""

    def __init__(self, label: str) -> None:
        self._prefix = f"t-{label}-{os.getpid()}-{secrets.token_hex(3)}"
        self._stack = ExitStack()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def namespace(self, label: str) -> Namespace:
        """A new namespace with its loopback up."""
        name = f"{self._prefix}-{label}"
        path = netns.create_named(name)
        self._stack.callback(netns.delete, path)
        made = Namespace(name, path)
        made.sysctl("ipv6/conf/default/accept_dad", "0")  # nobody has to wait for an address
        made.ip("link", "set", "lo", "up")
        return made

    def link(self, one: Namespace, one_link: str, other: Namespace, other_link: str) -> None:
        """A veth between two namespaces, both ends up."""
        one.ip("link", "add", one_link, "type", "veth", "peer", "name", other_link, "netns", other.name)
        one.ip("link", "set", one_link, "up")
        other.ip("link", "set", other_link, "up")

    def pod(self, node: Namespace, label: str, address: str) -> Namespace:
        """A pod on a routed veth, no bridge. The gateway's address is link-scoped: nothing is masqueraded as it."""
        pod = self.namespace(label)
        self.link(node, label, pod, "eth0")
        node.ip("addr", "add", "169.254.1.1/32", "dev", label, "scope", "link")
        node.sysctl("ipv4/ip_forward", "1")
        node.ip("route", "add", f"{address}/32", "dev", label)
        pod.ip("addr", "add", f"{address}/32", "dev", "eth0")
        pod.ip("route", "add", "169.254.1.1", "dev", "eth0")
        pod.ip("route", "add", "default", "via", "169.254.1.1", "dev", "eth0")
        return pod

    def second_address(self, node: Namespace, pod: Namespace, label: str, address: str) -> None:
        """An IPv6 address for a pod, routed the same way."""
        node.ip("addr", "add", "fe80::1/64", "dev", label, "nodad")
        node.sysctl("ipv6/conf/all/forwarding", "1")
        node.ip("route", "add", f"{address}/128", "dev", label)
        pod.ip("addr", "add", f"{address}/128", "dev", "eth0", "nodad")
        pod.ip("route", "add", "default", "via", "fe80::1", "dev", "eth0")

    def serve(
        self, where: Namespace, port: int, answer: str, *, udp: bool = False, family: int = socket.AF_INET
    ) -> None:
        """Answer every connection (or datagram) on `port` with "ANSWER CLIENT-ADDRESS"."""
        listening = where.socket(socket.SOCK_DGRAM if udp else socket.SOCK_STREAM, family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(("", port))
        if not udp:
            listening.listen(512)
        thread = threading.Thread(target=_serve_udp if udp else _serve_tcp, args=(listening, answer), daemon=True)
        thread.start()
        self._stack.callback(_stop, listening, thread)


def _stop(listening: socket.socket, thread: threading.Thread) -> None:
    with suppress(OSError):
        listening.shutdown(socket.SHUT_RDWR)  # wakes the thread out of accept or recvfrom
    thread.join(DEADLINE)
    listening.close()


def _serve_tcp(listening: socket.socket, answer: str) -> None:
    while True:
        try:
            connection, (peer, *_) = listening.accept()
        except OSError:
            return
        with connection, suppress(OSError):
            connection.sendall(f"{answer} {peer}".encode())


def _serve_udp(listening: socket.socket, answer: str) -> None:
    while True:
        try:
            data, peer = listening.recvfrom(512)
        except OSError:
            return
        if not data:
            return
        with suppress(OSError):
            listening.sendto(f"{answer} {peer[0]}".encode(), peer)


def ask(where: Namespace, address: str, port: int, *, udp: bool = False, timeout: float = DEADLINE) -> tuple[str, str]:
    """Who answers at address:port, and from which address it saw us come. Raises OSError as connect() does."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with where.socket(socket.SOCK_DGRAM if udp else socket.SOCK_STREAM, family) as asking:
        asking.settimeout(timeout)
        asking.connect((address, port))
        if udp:
            asking.send(b"?")
        said = b""
        while chunk := asking.recv(512):
            said += chunk
            if udp:
                break
    name, _, seen = said.decode().partition(" ")
    return name, seen


def look(where: Namespace, address: str, port: int, *, udp: bool = False) -> tuple[str, str]:
    """`ask` for what is asked again and again: soon over, for a datagram or a connection may be lost for good."""
    return ask(where, address, port, udp=udp, timeout=2)

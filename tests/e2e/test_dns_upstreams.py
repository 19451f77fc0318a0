"""`kubesvc up --forward` and `--zone`: whom a real box asks for other names."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dns.message
import dns.rrset

from support.box import eventually, fresh_box

ASK = """
import sys, dns.message, dns.query
reply = dns.query.udp(dns.message.make_query(sys.argv[2], "A"), sys.argv[1], port=10053, timeout=5)
print(*(data for rrset in reply.answer for data in rrset))
"""


@contextmanager
def resolver(address: str) -> Iterator[str]:
    """A DNS server on this machine that has one address for every name; where it is."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            data, peer = udp.recvfrom(4096)
            if data == b"end":
                return
            reply = dns.message.make_response(dns.message.from_wire(data))
            reply.answer.append(dns.rrset.from_text(reply.question[0].name, 60, "IN", "A", address))
            udp.sendto(reply.to_wire(), peer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{udp.getsockname()[1]}"
    finally:
        udp.sendto(b"end", udp.getsockname())
        thread.join()
        udp.close()


def test_named_resolvers_are_asked_from_this_machine(tmp_path):
    """Every name goes to --forward, those of a zone to --zone, also when both are on the machine's own loopback; a
    name of --host has its address."""
    with resolver("192.0.2.1") as world, resolver("192.0.2.2") as corp, fresh_box(tmp_path / "box") as box:
        box.up("--forward", world, "--zone", f"corp.example={corp}", "--host", "pinned.corp.example=192.0.2.3")
        server = box.get("node", "node1")["status"]["addresses"][0]["address"]

        def ask(name: str) -> str:
            return box.inside("node1", sys.executable, "-c", ASK, server, name).strip()

        assert eventually(lambda: ask("www.example.com")) == "192.0.2.1"
        assert eventually(lambda: ask("git.corp.example")) == "192.0.2.2"
        assert ask("pinned.corp.example") == "192.0.2.3"
        assert ask("kubernetes.default.svc.cluster.local") == "10.96.0.1"

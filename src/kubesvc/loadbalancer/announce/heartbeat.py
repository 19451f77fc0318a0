"""How announcers on one segment know of each other, to and from wire. Pure.

The API says within a minute that a node is gone; neighbours wait a second at most. So each announcer says that it
lives, several times a second, to the others on the segment where they would answer: an Ethernet frame of the type that
IEEE 802 leaves for local use, which needs no address, passes no router, and reaches exactly those it concerns.

    ethernet  0 group 6 │ 6 source 12 │ 12 0x88b5 14
    ours      14 "kubesvc1" 22 │ 22 leaving? 23 │ 23 length, node's uid │ length, interface's name
"""

from __future__ import annotations

import msgspec

ETHERTYPE = 0x88B5
GROUP = b"\x03kubes"  # multicast, locally administered
MAGIC = b"kubesvc1"


class Heartbeat(msgspec.Struct, frozen=True):
    """`uid` is the Node object's: names may be the same in two clusters on one segment."""

    mac: bytes
    uid: str
    interface: str
    leaving: bool = False

    def to_wire(self) -> bytes:
        texts = b"".join(bytes((len(text),)) + text for text in (self.uid.encode()[:255], self.interface.encode()))
        frame = GROUP + self.mac + ETHERTYPE.to_bytes(2, "big") + MAGIC + bytes((self.leaving,)) + texts
        return frame.ljust(60, b"\0")

    @classmethod
    def from_wire(cls, frame: bytes) -> Heartbeat | None:
        """The heartbeat in `frame`; None when it is none of ours."""
        if len(frame) < 25 or frame[12:14] != ETHERTYPE.to_bytes(2, "big") or frame[14:22] != MAGIC:
            return None
        texts: list[str] = []
        at = 23
        for _ in range(2):
            if at >= len(frame) or at + 1 + frame[at] > len(frame):
                return None
            try:
                texts.append(frame[at + 1 : at + 1 + frame[at]].decode())
            except UnicodeDecodeError:
                return None
            at += 1 + frame[at]
        return cls(frame[6:12], texts[0], texts[1], bool(frame[22]))

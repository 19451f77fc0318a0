"""The announcers that are alive on one interface's segment, this one included."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from kubesvc.loadbalancer.announce import packets
from kubesvc.loadbalancer.announce.heartbeat import Heartbeat
from kubesvc.loadbalancer.announce.l2 import Ear

log = logging.getLogger(__name__)


class Segment:
    """Says that this announcer lives and hears who else does. `changed` is called when that is another set."""

    def __init__(self, interface: str, *, interval: float, silence: float, changed: Callable[[], None]) -> None:
        self.uid = ""
        """This node's; nothing is said before it is known."""
        self._leaving = False
        self._interface, self._interval, self._silence = interface, interval, silence
        self._changed = changed
        self._ear = Ear("heartbeats", interface, packets.open_heartbeat)
        self._heard: dict[str, tuple[float, str]] = {}  # node's uid -> when, and the name of its interface
        self._settled_at = float("inf")

    @property
    def listening(self) -> asyncio.Event:
        return self._ear.open

    def heard(self) -> dict[str, str]:
        """Who is alive but for this node: uid -> the name of its interface on this segment."""
        return {uid: interface for uid, (_, interface) in self._heard.items()}

    def settled(self, expected: Collection[str]) -> bool:
        """Whether all who are alive must have been heard; at once when all of `expected` (uids) were."""
        return asyncio.get_running_loop().time() >= self._settled_at or set(expected) <= {self.uid, *self._heard}

    async def run(self) -> None:
        """Until cancelled; then the others are told."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ear.run(self._hear, self._opened))
                group.create_task(self._beat())
        finally:
            self.take_part(False)

    def take_part(self, does: bool) -> None:
        """Whether this node stands for election. The others are told at once: they needn't wait for silence, and know
        of a return before they hear it announce."""
        if does == self._leaving:
            self._leaving = not does
            self._say()

    def _opened(self) -> None:
        loop = asyncio.get_running_loop()
        self._settled_at = loop.time() + self._silence
        loop.call_later(self._silence + 0.01, self._changed)
        self._say()

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        expected = loop.time()
        while True:
            await asyncio.sleep(self._interval)
            self._say()
            expected, late = loop.time() + self._interval, loop.time() - expected > self._silence / 2
            if not late:  # when we were held up ourselves, what others said may still wait to be read
                self._forget(loop.time() - self._silence)

    def _say(self) -> None:
        if self.uid:
            self._ear.say(Heartbeat(self._ear.mac, self.uid, self._interface, self._leaving).to_wire())

    def _hear(self, frame: bytes) -> None:
        beat = Heartbeat.from_wire(frame)
        if beat is None or beat.uid == self.uid:
            return
        known = beat.uid in self._heard
        if beat.leaving:
            self._heard.pop(beat.uid, None)
        else:
            self._heard[beat.uid] = (asyncio.get_running_loop().time(), beat.interface)
        if known == beat.leaving:
            if not known:
                self._say()  # a newcomer needn't wait for our next beat
            self._changed()

    def _forget(self, before: float) -> None:
        silent = [uid for uid, (when, _) in self._heard.items() if when < before]
        for uid in silent:
            log.warning("%s: the announcer of node %s is silent", self._interface, uid)
            del self._heard[uid]
        if silent:
            self._changed()

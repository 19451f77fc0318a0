"""Fair queueing: who asks much waits for himself, not for everybody.

    requests of a client ──► its own queue ──► seats, given to the queues in turn ──► the handler

A client is who the request is from; all strangers are one. A seat is held until there is an answer: not by a watch or
a log that goes on. Clients inside this process don't come by here. The idea is that of API priority and fairness
(KEP-1040), with one level.
"""

from __future__ import annotations

import asyncio
from collections import deque

from kubesvc.api.errors import TooManyRequests

SEATS = 64
"""Requests worked on at once: enough for one commit to carry many, few enough to be done within a blink."""

LONGEST = 2048
"""Requests of one client that may wait."""


class Seats:
    """`async with` is not used: `take` and `give_back` cost a request nothing where seats are free."""

    def __init__(self, seats: int = SEATS, longest: int = LONGEST) -> None:
        self._free = seats
        self._longest = longest
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # client -> its queue; the next to be served first

    async def take(self, client: str) -> None:
        """Wait for a seat. Raises TooManyRequests where too many of the same client wait already."""
        if self._free and not self._waiting:
            self._free -= 1
            return
        queue = self._waiting.setdefault(client, deque())
        if len(queue) >= self._longest:
            why = "The server has received too many requests and has asked us to try again later"
            raise TooManyRequests(why, retry_after=1)
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()  # it was given a seat in the same moment
            else:
                self._leave(client, turn)
            raise

    def give_back(self) -> None:
        """The seat goes to the client whose turn it is, which then goes to the end of the round."""
        while self._waiting:
            client = next(iter(self._waiting))
            queue = self._waiting.pop(client)
            turn = queue.popleft()
            if queue:
                self._waiting[client] = queue
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _leave(self, client: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(client)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[client]

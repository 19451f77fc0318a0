"""How many connections are let in: of one address and altogether, shaking hands and after.

    accept ─► Doors.knock ─► TLS handshake, HANDSHAKE seconds at most ─► requests ─► Doors.leave
                  └─ too many: closed at once; slightly too many: let in to be told so, with 429

A handshake costs a hundred times what accepting does: so those of one address wait for one another and not for
everybody's, and who never finishes one is closed. Idle connections are the listener's to end.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable
from enum import Enum

from kubesvc.api.errors import TooManyRequests

log = logging.getLogger(__name__)

HANDSHAKE = 10.0  # seconds
ALTOGETHER = 4096
OF_ONE = 1024  # of one address
SHAKING = 64  # of one address, not through the handshake yet
TOLD = 64  # of one address beyond OF_ONE, which are let in to hear why they aren't
_OTHERS = 256  # descriptors that aren't connections of ours
_PAUSE = 0.2  # seconds without accepting when there are no descriptors left
_COMPLAIN = 10.0  # seconds between two lines in the log


class Verdict(Enum):
    IN = "in"
    TELL = "tell"
    CLOSE = "close"


def altogether() -> int:
    """What the process's limit of open files leaves room for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ALTOGETHER if soft == resource.RLIM_INFINITY else max(64, min(ALTOGETHER, soft - _OTHERS))


class Doors:
    """Counts connections. Each `knock` that isn't CLOSE is followed by one `leave`, and by `through` after its
    handshake."""

    def __init__(self, of_one: int = OF_ONE, shaking: int = SHAKING, total: int | None = None) -> None:
        self._total = altogether() if total is None else total
        self._of_one, self._shaking_of_one = min(of_one, self._total // 2), shaking
        self._inside: Counter[str] = Counter()  # address -> its connections
        self._shaking: Counter[str] = Counter()  # address -> those of them that shake hands
        self._count = 0

    def knock(self, address: str) -> Verdict:
        if self._count >= self._total or self._shaking[address] >= self._shaking_of_one:
            return Verdict.CLOSE
        inside = self._inside[address]
        if inside >= self._of_one + TOLD:
            return Verdict.CLOSE
        self._count += 1
        self._inside[address] += 1
        self._shaking[address] += 1
        return Verdict.IN if inside < self._of_one else Verdict.TELL

    def through(self, address: str) -> None:
        _less(self._shaking, address)

    def leave(self, address: str) -> None:
        self._count -= 1
        _less(self._inside, address)

    def refusal(self) -> TooManyRequests:
        why = f"too many connections from one address: at most {self._of_one}; close some, or use one for many requests"
        return TooManyRequests(why, retry_after=1)


def _less(counter: Counter[str], address: str) -> None:
    counter[address] -= 1
    if counter[address] <= 0:
        del counter[address]


Enter = Callable[[Verdict, Callable[[], None]], asyncio.Protocol]
"""A protocol for a connection; the callback is called when it ends."""


class Porter:
    """Accepts on bound sockets and lets in what `doors` allows, over TLS."""

    def __init__(self, doors: Doors, tls: ssl.SSLContext, enter: Enter, handshake: float = HANDSHAKE) -> None:
        self._doors, self._tls, self._enter, self._handshake = doors, tls, enter, handshake
        self._tasks: set[asyncio.Task[None]] = set()
        self._complained = -_COMPLAIN

    def listen(self, bound: socket.socket, backlog: int) -> None:
        bound.setblocking(False)
        bound.listen(backlog)
        asyncio.get_running_loop().add_reader(bound, self._accept, bound)

    def close(self, bound: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(bound)
        bound.close()
        for task in self._tasks:
            task.cancel()

    def _resume(self, bound: socket.socket) -> None:
        if bound.fileno() >= 0:
            asyncio.get_running_loop().add_reader(bound, self._accept, bound)

    def _accept(self, bound: socket.socket) -> None:
        for _ in range(32):  # then others have their turn
            try:
                connection, peer = bound.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._complain(f"connections can't be accepted: {error}")
                loop = asyncio.get_running_loop()  # it would be tried again at once, and forever
                loop.remove_reader(bound)
                loop.call_later(_PAUSE, self._resume, bound)
                return
            address = str(peer[0]) if isinstance(peer, tuple) and peer else ""
            verdict = self._doors.knock(address)
            if verdict is Verdict.CLOSE:
                connection.close()
                self._complain(f"too many connections, the last from {address}: closed at once")
                continue
            connection.setblocking(False)
            task = asyncio.get_running_loop().create_task(self._let_in(connection, address, verdict))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _let_in(self, connection: socket.socket, address: str, verdict: Verdict) -> None:
        inside = True

        def left() -> None:
            nonlocal inside
            if inside:
                inside = False
                self._doors.leave(address)

        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._enter(verdict, left), connection, ssl=self._tls, ssl_handshake_timeout=self._handshake
            )
        except (OSError, ssl.SSLError, TimeoutError) as error:
            log.debug("%s: no handshake: %s", address, error)
            connection.close()
            left()
        except asyncio.CancelledError:
            connection.close()
            left()
            raise
        finally:
            self._doors.through(address)

    def _complain(self, what: str) -> None:
        if time.monotonic() - self._complained >= _COMPLAIN:
            self._complained = time.monotonic()
            log.warning("%s", what)

"""Pulling for a node's agent: on the machine's own network, in a thread, one pull for all who want the same.

The agent lives in the node's network namespace, from where no registry can be reached. A namespace belongs to a thread,
and so does a pull: it has an event loop of its own, in a thread that has gone back to the machine's namespace. Threads
started there, as for looking up names, are there too.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress

from kubesvc.kernel import netns
from kubesvc.node.images.credentials import Credentials
from kubesvc.node.images.image import Image, ImageError
from kubesvc.node.images.pull import pull
from kubesvc.node.images.reference import Reference
from kubesvc.node.images.store import Store

Key = tuple[Reference, tuple[Credentials, ...]]


class Puller:
    """`network`: an open descriptor of the namespace to pull in; None: the calling thread's own."""

    def __init__(self, store: Store, network: int | None) -> None:
        self._store, self._network = store, network
        self._pulls: dict[Key, asyncio.Future[Image]] = {}  # what is under way

    async def pull(self, reference: Reference, known: Sequence[Credentials]) -> Image:
        """Raises ImageError. A pull goes on when who asked for it doesn't want it any more: the next one will."""
        key = (reference, tuple(known))
        done = self._pulls.get(key)
        if done is None:
            loop = asyncio.get_running_loop()
            done = self._pulls[key] = loop.create_future()
            done.add_done_callback(lambda _: self._pulls.pop(key, None))
            threading.Thread(target=self._run, args=(key, loop, done), name=f"pull {reference}", daemon=True).start()
        return await asyncio.shield(done)

    def _run(self, key: Key, home: asyncio.AbstractEventLoop, done: asyncio.Future[Image]) -> None:
        """In the thread; what it comes to is put into `done`, a future of the loop `home`."""
        tell: Callable[[], None]
        try:
            with netns.entered(self._network) if self._network is not None else nullcontext():
                image = asyncio.run(pull(self._store, *key))
            tell = lambda: done.set_result(image)  # noqa: E731
        except Exception as failed:
            error = failed if isinstance(failed, ImageError) else ImageError(f"{key[0]}: {failed}")
            tell = lambda: done.set_exception(error)  # noqa: E731
        with suppress(RuntimeError):  # the agent is gone
            home.call_soon_threadsafe(tell)

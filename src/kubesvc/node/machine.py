"""What all pods of a node share: the programs, the address pool, the way to the API. Made once by main.py."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field

from kubesvc.client.session import Session
from kubesvc.kernel.links import Links
from kubesvc.node import etc
from kubesvc.node.config import NodeConfig, Paths
from kubesvc.node.events import Recorder
from kubesvc.node.exits import Exits
from kubesvc.node.ipam import AddressPool
from kubesvc.node.runtime import Runtime
from kubesvc.node.sources import Reader
from kubesvc.node.withdrawal import Withdrawal


def _slots() -> asyncio.Semaphore:
    # More at once than there are processors makes every one of them slower and none sooner.
    return asyncio.Semaphore(max(2, (os.cpu_count() or 2) + 1))


@dataclass(slots=True)
class Machine:
    config: NodeConfig
    session: Session
    links: Links  # of the node's namespace
    pool: AddressPool
    runtime: Runtime
    exits: Exits
    events: Recorder
    reader: Reader
    resolver: etc.Resolver  # the machine's own
    withdrawal: Withdrawal
    creating: asyncio.Semaphore = field(default_factory=_slots)

    @property
    def paths(self) -> Paths:
        return self.config.paths

"""Provider gcp against the stand-in for compute v1, by Google's own library.

`no-op`: 100 Services that are as they should be, looked at by a process that has just begun: its calls.
loadbalancer_faults.py has the random faults.
"""

from __future__ import annotations

import asyncio
import time

from support.gcp.server import gcp_server
from support.gcp.users import nodes, provider, service

SERVICES = 100


async def no_op() -> None:
    every = [service(f"s{number}") for number in range(SERVICES)]
    async with gcp_server() as server:
        async with provider(server) as gcp:
            await asyncio.gather(*(gcp.ensure(s, nodes()) for s in every))
        async with provider(server, *every) as gcp:
            server.calls.clear()
            begun = time.process_time()
            await asyncio.gather(*(gcp.ensure(s, nodes()) for s in every))
            spent = time.process_time() - begun
        print(f"no-op: {SERVICES} Services, {server.mutations} mutating calls, {spent * 1000:.0f} ms of CPU")
        for call, number in sorted(server.calls.items()):
            print(f"  {call}: {number}")


if __name__ == "__main__":
    asyncio.run(no_op())

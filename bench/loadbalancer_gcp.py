"""Provider gcp against the stand-in for compute v1, by Google's own library.

`no-op`: 100 Services that are as they should be, looked at by a process that has just begun: its calls. `storm`: cycles
of create, update and delete, eight at a time, where each call fails, goes unanswered, or is done and goes unanswered,
and each operation ends in an error, with 20 %: what is wrong and what is left.
"""

from __future__ import annotations

import asyncio
import sys
import time

from support.gcp.server import gcp_server
from support.gcp.storm import storm
from support.gcp.users import nodes, provider, service

SERVICES = 100
CYCLES = int(sys.argv[1]) if len(sys.argv) > 1 else 500
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else 7


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


async def fly() -> None:
    async with gcp_server(seed=SEED, latency=0.001) as server:
        begun = time.process_time()
        outcome = await storm(server, CYCLES, seed=SEED)
    spent, calls = time.process_time() - begun, sum(outcome.calls.values())
    print(f"storm: {outcome.cycles} cycles, {spent:.0f} s of CPU, {calls} calls")
    print(f"  faults: {dict(outcome.faults)}; failures told: {outcome.failures}; restarts: {outcome.restarts}")
    print(f"  leaked {len(outcome.leaked)}: {outcome.leaked}")
    print(f"  wrong {len(outcome.wrong)}: {outcome.wrong}")


if __name__ == "__main__":
    asyncio.run(no_op())
    asyncio.run(fly())

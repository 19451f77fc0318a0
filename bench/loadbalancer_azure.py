"""Provider azure against a stand-in for Azure: calls of a no-op reconcile. Random faults: loadbalancer_faults.py.

PYTHONPATH=src:bench:tests python bench/loadbalancer_azure.py [--services 100]
"""

from __future__ import annotations

import asyncio

from dns_cluster import options
from figures import show
from kubesvc.loadbalancer.providers.azure.provider import AzureProvider
from support import azure as azures
from support.azure_faults import NODES
from support.azure_services import INTERNAL, service


async def no_op(count: int) -> tuple[int, int, int]:
    """(calls to make them, reads of a reconcile after a restart, its writes)."""
    services = [service(f"s{n}", annotations={INTERNAL: "true"} if n % 4 == 0 else {}) for n in range(count)]
    async with azures.azure() as (cloud, config):
        for restart in (False, True):
            provider = AzureProvider(config, "kubernetes", azures.client(config))
            task = asyncio.create_task(provider.run(lambda _: None))
            await asyncio.sleep(0)
            await provider.adopt(services if restart else [])
            if restart:
                made = sum(cloud.calls.values())
                cloud.calls.clear()
            await asyncio.gather(*(provider.ensure(wanted, NODES) for wanted in services))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return made, sum(cloud.calls.values()) - cloud.mutations(), cloud.mutations()


async def measure(services: int) -> None:
    made, reads, writes = await no_op(services)
    show("azure_create_calls", made, "calls")
    show("azure_no_op_reads", reads, "calls")
    show("azure_no_op_writes", writes, "calls")


def main() -> None:
    asyncio.run(measure(options(__doc__, services=100).services))


if __name__ == "__main__":
    main()

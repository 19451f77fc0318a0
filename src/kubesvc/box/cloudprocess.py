"""The process of a box's cloud (`kubesvc up --cloud`): its balancers, and their name server."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv4Network

from kubesvc.box import clouddns
from kubesvc.box.definition import Box
from kubesvc.loadbalancer.desk import main as desk
from kubesvc.loadbalancer.desk.main import CloudConfig


async def run(box: Box) -> None:
    address = IPv4Address(box.network.cloud)  # `Box` has seen to it that the box is of IPv4 alone
    config = CloudConfig(
        directory=box.balancers,
        address=address,
        networks=(IPv4Network(box.network.network), IPv4Network(box.pods[0])),
        host=IPv4Address(box.network.host),
        certificate=box.path / "pki" / "cloud.crt",
        speed=box.cloud_speed,
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(desk.run(config))
        group.create_task(clouddns.run(box.balancers, address))

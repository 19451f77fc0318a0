"""Options of `kubesvc loadbalancer --provider gcp`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from kubesvc.loadbalancer.config import GcpConfig

_OPTIONS = (
    click.option("--gcp-project", default="", metavar="ID", help="gcp: the project of the nodes' VMs."),
    click.option("--gcp-region", default="", metavar="REGION", help="gcp: the region of the nodes' VMs."),
    click.option("--gcp-network", default="default", show_default=True, help="gcp: the VPC network, by name."),
    click.option(
        "--gcp-subnetwork",
        default="",
        metavar="NAME",
        help="gcp: where internal load balancers have their addresses; needed in a network of custom mode.",
    ),
    click.option(
        "--gcp-node-tag",
        "gcp_node_tags",
        multiple=True,
        metavar="TAG",
        help="gcp: firewall rules are for VMs with this network tag; several may be given.  [default: all VMs]",
    ),
    click.option(
        "--gcp-endpoint",
        default="",
        metavar="URL",
        help="gcp: in place of https://compute.googleapis.com. To http:// no credentials are sent.",
    ),
)


def gcp_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives the command `gcp`: a GcpConfig, or None when no project is named."""

    @functools.wraps(command)
    def called(
        *args: Any,
        gcp_project: str,
        gcp_region: str,
        gcp_network: str,
        gcp_subnetwork: str,
        gcp_node_tags: tuple[str, ...],
        gcp_endpoint: str,
        **others: Any,
    ) -> Any:
        if bool(gcp_project) != bool(gcp_region):
            raise click.UsageError("--gcp-project and --gcp-region: give both")
        gcp = None
        if gcp_project:
            gcp = GcpConfig(gcp_project, gcp_region, gcp_network, gcp_subnetwork, gcp_node_tags, gcp_endpoint)
        return command(*args, gcp=gcp, **others)

    for option in reversed(_OPTIONS):
        called = option(called)
    return called

"""The `--azure-…` options of `kubesvc loadbalancer`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from kubesvc.loadbalancer.providers.azure.config import AZURE_CLASS, PUBLIC_CLOUD, AzureConfig

F = TypeVar("F", bound=Callable[..., Any])
NEEDED = ("subscription", "resource_group", "location", "vnet", "subnet", "nsg")


def azure_options(command: F) -> F:
    """They arrive as `azure_…`: `azure_config` makes one thing of them."""
    for option in reversed(
        (
            click.option("--azure-subscription", metavar="ID", help="The subscription of the cluster."),
            click.option(
                "--azure-resource-group", metavar="NAME", help="Where load balancers and public IPs are made."
            ),
            click.option("--azure-location", metavar="REGION", help="Such as westeurope."),
            click.option("--azure-vnet", metavar="NAME", help="The nodes' virtual network: a name, or a whole id."),
            click.option("--azure-subnet", metavar="NAME", help="Where internal load balancers' addresses come from."),
            click.option(
                "--azure-nsg", metavar="NAME", help="The nodes' network security group: a name, or a whole id."
            ),
            click.option("--azure-endpoint", default=PUBLIC_CLOUD, show_default=True, help="Azure Resource Manager."),
            click.option(
                "--azure-ca-file",
                type=click.Path(path_type=Path, dir_okay=False, exists=True),
                help="The authority of the endpoint's certificate, where it isn't a public one.",
            ),
            click.option(
                "--azure-class", default=AZURE_CLASS, show_default=True, help="The loadBalancerClass of provider azure."
            ),
        )
    ):
        command = option(command)
    return command


def azure_config(wanted: bool, given: dict[str, Any]) -> AzureConfig | None:
    """None without the provider. Raises UsageError for what is missing."""
    if not wanted:
        return None
    missing = [f"--azure-{name.replace('_', '-')}" for name in NEEDED if not given[f"azure_{name}"]]
    if missing:
        raise click.UsageError(f"--provider azure needs {', '.join(missing)}, too")
    return AzureConfig(
        **{name: given[f"azure_{name}"] for name in NEEDED},
        load_balancer_class=given["azure_class"],
        endpoint=given["azure_endpoint"],
        ca_file=given["azure_ca_file"],
    )

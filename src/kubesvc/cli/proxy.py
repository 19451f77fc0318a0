"""`kubesvc proxy`."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import click

from kubesvc.client.kubeconfig import KubeconfigError
from kubesvc.kernel.nft.transaction import NftError
from kubesvc.proxy import standalone
from kubesvc.proxy.config import check_node_port_addresses
from kubesvc.proxy.standalone import Options, StandaloneError

Network = IPv4Network | IPv6Network


Parser = Callable[[click.Context, click.Parameter, str], Any]


def _networks(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[Network, ...]:
    """CIDRs, separated by commas."""
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in value.split(",") if part.strip())
    except ValueError as error:
        raise click.BadParameter(f"{error}; expected CIDRs such as 10.244.0.0/16,fd00:10:244::/56") from error


def _node_port_addresses(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[str, ...]:
    words = tuple(part.strip() for part in value.split(",") if part.strip())
    try:
        check_node_port_addresses(words)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return words


def _address(usual_port: int) -> Parser:
    """IP:PORT, [IPv6]:PORT, or an IP alone with the usual port. Nothing: not served."""

    def parse(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[str, int] | None:
        if not value:
            return None
        host, colon, port = value.rpartition(":")
        if not colon or (":" in host and not host.startswith("[")):
            host, port = value, str(usual_port)
        try:
            return str(ipaddress.ip_address(host.strip("[]"))), int(port)
        except ValueError as error:
            raise click.BadParameter(f"{error}; expected IP:PORT") from error

    return parse


def _cidrs(flag: str, help_text: str) -> Callable[[Any], Any]:
    return click.option(flag, metavar="CIDR,...", default="", callback=_networks, help=help_text)


def _bind(flag: str, default: str, port: int, what: str) -> Callable[[Any], Any]:
    help_text = f"Where {what} answer; empty: nowhere."
    return click.option(
        flag, metavar="IP:PORT", default=default, show_default=True, callback=_address(port), help=help_text
    )


@click.command()
@click.option("--kubeconfig", type=click.Path(path_type=Path, dir_okay=False), help="How to reach the API server.")
@click.option("--hostname-override", metavar="NODE", help="The Node this is.  [default: this machine's host name]")
@_cidrs("--cluster-cidr", "The pods' network.  [default: the Node's podCIDRs]")
@_cidrs("--service-cluster-ip-range", "Cluster IPs.  [default: the ServiceCIDR objects]")
@click.option(
    "--detect-local-mode",
    type=click.Choice(["ClusterCIDR", "NodeCIDR"]),
    help="Which sources are pods of this node: those in --cluster-cidr, or in the Node's podCIDRs.  "
    "[default: ClusterCIDR where --cluster-cidr is given]",
)
@click.option(
    "--nodeport-addresses",
    "--node-port-addresses",
    metavar="CIDR,...",
    default="primary",
    show_default=True,
    callback=_node_port_addresses,
    help="Where node ports answer: CIDRs, 'primary' (the Node's own addresses), 'all', 'localhost'.",
)
@click.option(
    "--localhost-nodeports/--no-localhost-nodeports",
    default=False,
    show_default=True,
    help="Have node ports answer on this machine's 127.0.0.1 and, for TCP, on ::1. Sets "
    "net.ipv4.conf.all.route_localnet, and keeps out what comes from elsewhere.",
)
@_bind("--healthz-bind-address", "0.0.0.0:10256", 10256, "/healthz and /livez")
@_bind("--metrics-bind-address", "127.0.0.1:10249", 10249, "/metrics and /proxyMode")
@click.option("--cleanup", is_flag=True, help="Take the data plane away, and end.")
@click.option("--v", "-v", "verbosity", type=int, default=0, metavar="N", help="Log more: 4 and above, everything.")
def proxy(
    kubeconfig: Path | None,
    hostname_override: str | None,
    cluster_cidr: tuple[Network, ...],
    service_cluster_ip_range: tuple[Network, ...],
    detect_local_mode: str | None,
    nodeport_addresses: tuple[str, ...],
    localhost_nodeports: bool,
    healthz_bind_address: tuple[str, int] | None,
    metrics_bind_address: tuple[str, int] | None,
    cleanup: bool,
    verbosity: int,
) -> None:
    """Be a node's proxy in any Kubernetes cluster, in place of kube-proxy.

    Programs nftables in the network namespace it is started in, as root. What is programmed stays in force when the
    command ends, so that a restart interrupts nothing; --cleanup takes it away.
    """
    level = logging.DEBUG if verbosity >= 4 else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        if cleanup:
            found = standalone.cleanup()
            click.echo("the data plane is gone" if found else "there was no data plane of kubesvc here")
            return
        if kubeconfig is None:
            raise click.UsageError("--kubeconfig FILE is missing: how to reach the API server")
        if detect_local_mode == "ClusterCIDR" and not cluster_cidr:
            raise click.UsageError("--detect-local-mode ClusterCIDR needs to know the pods' network: --cluster-cidr")
        standalone.serve(
            Options(
                kubeconfig,
                (hostname_override or socket.gethostname()).lower(),
                cluster_cidr,
                service_cluster_ip_range,
                nodeport_addresses,
                localhost_nodeports,
                detect_local_mode or "",
                healthz_bind_address,
                metrics_bind_address,
            )
        )
    except (StandaloneError, KubeconfigError, NftError) as error:
        raise click.ClickException(str(error)) from error

"""`kubesvc proxy`."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import socket
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import click

from kubesvc import __version__
from kubesvc.cli import kube_proxy
from kubesvc.client.kubeconfig import KubeconfigError
from kubesvc.kernel.nft.transaction import NftError
from kubesvc.proxy import standalone
from kubesvc.proxy.config import check_node_port_addresses
from kubesvc.proxy.standalone import Options, StandaloneError

Network = IPv4Network | IPv6Network


Parser = Callable[[click.Context, click.Parameter, str], Any]


def _networks(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[Network, ...]:
    """CIDRs, separated by commas."""
    if value == "primary":  # kube-proxy's word for what is usual here
        return ()
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


_MOST_CONNECTIONS = 1 << 20  # upstream's limit to what it works out of the number of cores
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:h|ms|m|s))+|0")


def _duration(_ctx: click.Context, _param: click.Parameter, value: str) -> int:
    """Whole seconds of 24h0m0s."""
    if not _DURATION.fullmatch(value):
        raise click.BadParameter(f"{value!r} is no duration; expected one such as 24h, 1h30m or 45s; 0 leaves it alone")
    parts = re.findall(r"([\d.]+)(h|ms|m|s)", value)
    return round(sum(float(number) * _UNITS[unit] for number, unit in parts))


def _lasting(flag: str, default: str, what: str) -> Callable[[Any], Any]:
    help_text = f"How long {what}; 0: as it is."
    return click.option(
        flag, metavar="DURATION", default=default, show_default=default != "0", callback=_duration, help=help_text
    )


def _sysctls(per_core: int, least: int, **seconds: int) -> tuple[tuple[str, int], ...]:
    """As kube-proxy works them out; 0 is none."""
    most = min(max(least, per_core * (os.cpu_count() or 1)), _MOST_CONNECTIONS) if per_core else 0
    found = {"nf_conntrack_max": most, **{f"nf_conntrack_{name}": value for name, value in seconds.items()}}
    return tuple((name, value) for name, value in found.items() if value)


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
@click.option("--masquerade-all", is_flag=True, help="Masquerade whatever goes through a cluster IP.")
@click.option(
    "--conntrack-max-per-core",
    metavar="N",
    type=click.IntRange(0),
    default=32768,
    show_default=True,
    help="Connections to track at least, for each core; 0: as many as now.",
)
@click.option(
    "--conntrack-min",
    metavar="N",
    type=click.IntRange(0),
    default=131072,
    show_default=True,
    help="Connections to track at least, however few the cores.",
)
@_lasting("--conntrack-tcp-timeout-established", "24h", "an idle TCP connection is tracked")
@_lasting("--conntrack-tcp-timeout-close-wait", "1h", "a TCP connection is tracked that one side has closed")
@_lasting("--conntrack-udp-timeout", "0", "UDP that was never answered is tracked")
@_lasting("--conntrack-udp-timeout-stream", "0", "UDP that was answered is tracked")
@click.option(
    "--report-programmed",
    is_flag=True,
    help="While endpoints terminate, say in the node's Lease what is in force: kubesvc's agents wait for it.",
)
@kube_proxy.flags
@click.option("--cleanup", is_flag=True, help="Take the data plane away, and end.")
@click.version_option(__version__, prog_name="kubesvc proxy")
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
    masquerade_all: bool,
    conntrack_max_per_core: int,
    conntrack_min: int,
    conntrack_tcp_timeout_established: int,
    conntrack_tcp_timeout_close_wait: int,
    conntrack_udp_timeout: int,
    conntrack_udp_timeout_stream: int,
    report_programmed: bool,
    cleanup: bool,
    verbosity: int,
) -> None:
    """Be a node's proxy in any Kubernetes cluster, in place of kube-proxy.

    Programs nftables in the network namespace it is started in, as root. What is programmed stays in force when the
    command ends, so that a restart interrupts nothing; --cleanup takes it away. Flags of kube-proxy that have no
    meaning here are answered by name.
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
                masquerade_all,
                _sysctls(
                    conntrack_max_per_core,
                    conntrack_min,
                    tcp_timeout_established=conntrack_tcp_timeout_established,
                    tcp_timeout_close_wait=conntrack_tcp_timeout_close_wait,
                    udp_timeout=conntrack_udp_timeout,
                    udp_timeout_stream=conntrack_udp_timeout_stream,
                ),
                report_programmed,
            )
        )
    except (StandaloneError, KubeconfigError, NftError) as error:
        raise click.ClickException(str(error)) from error

"""`kubesvc loadbalancer`."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import uuid
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from kubesvc import __version__
from kubesvc.api.balancing import Range, parse_range
from kubesvc.api.errors import ApiError
from kubesvc.cli.azure import azure_config, azure_options
from kubesvc.cli.gcp import gcp_options
from kubesvc.client import kubeconfig as kubeconfigs
from kubesvc.client.kubeconfig import KubeconfigError
from kubesvc.client.session import Unreachable
from kubesvc.loadbalancer import standalone
from kubesvc.loadbalancer.config import POOL_CLASS, AnnounceConfig, AwsConfig, GcpConfig, LoadBalancerConfig
from kubesvc.loadbalancer.leader import LeaderConfig, LeadershipLost
from kubesvc.loadbalancer.main import PROVIDERS
from kubesvc.loadbalancer.overview import Overview, overview
from kubesvc.loadbalancer.provider import LoadBalancerError
from kubesvc.loadbalancer.standalone import StandaloneError

OURS = sorted(name for name in PROVIDERS if name != "desk")  # the desk's cloud is a box's own

KUBECONFIG = click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="KUBECONFIG",
    help="How to reach the API server.  [env: KUBECONFIG]",
)
VERBOSITY = click.option(
    "--v", "-v", "verbosity", type=int, default=0, metavar="N", help="Log more: 4 and above, everything."
)


def _ranges(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[Range, ...]:
    try:
        return tuple(parse_range(part) for value in values for part in value.split(",") if part.strip())
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


POOL = click.option(
    "--pool",
    "pools",
    multiple=True,
    metavar="RANGE",
    callback=_ranges,
    help="Addresses beside those of IPAddressPool objects: 192.0.2.0/24 or 192.0.2.10-192.0.2.20. Give the controller "
    "and the announcers the same.",
)


def _given(kubeconfig: Path | None) -> Path:
    if kubeconfig is None:
        raise click.UsageError("--kubeconfig FILE is missing: how to reach the API server")
    return kubeconfig


def _log(verbosity: int) -> None:
    level = logging.DEBUG if verbosity >= 4 else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


@click.group(invoke_without_command=True)
@KUBECONFIG
@click.option(
    "--provider",
    "providers",
    multiple=True,
    type=click.Choice(OURS),
    default=("pool",),
    show_default=True,
    help="What makes load balancers; several may be given.",
)
@click.option(
    "--default-provider",
    type=click.Choice([*OURS, "none"]),
    help="Who serves Services without a loadBalancerClass; none: another load balancer does.  [default: the first]",
)
@click.option("--pool-class", default=POOL_CLASS, show_default=True, help="The loadBalancerClass of provider pool.")
@POOL
@click.option(
    "--cluster-name",
    default="kubernetes",
    show_default=True,
    help="What a cloud's objects are tagged with: one of its own for every cluster of an account.",
)
@click.option(
    "--leader-elect/--no-leader-elect",
    default=False,
    help="Act only while holding a Lease, so that several may run: one of them does the work.",
)
@click.option(
    "--leader-elect-lease-duration",
    "lease_duration",
    type=float,
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a leader that says nothing counts as one.",
)
@click.option(
    "--leader-elect-renew-deadline",
    "renew_deadline",
    type=float,
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="A leader that can't renew for so long ends.",
)
@click.option(
    "--leader-elect-retry-period",
    "retry_period",
    type=float,
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two tries.",
)
@click.option(
    "--leader-elect-resource-name",
    "lease_name",
    default="kubesvc-loadbalancer",
    show_default=True,
    help="The Lease's name.",
)
@click.option(
    "--leader-elect-resource-namespace",
    "lease_namespace",
    default="kube-system",
    show_default=True,
    help="The Lease's namespace.",
)
@gcp_options
@click.option("--aws-region", default="", metavar="REGION", help="Of provider aws.  [default: as the AWS CLI's]")
@click.option("--aws-vpc-id", default="", metavar="VPC", help="Where the nodes are.  [default: as they say]")
@click.option("--aws-endpoint-url", default="", metavar="URL", help="Another service with AWS's API, for tests.")
@azure_options
@click.version_option(__version__, prog_name="kubesvc loadbalancer")
@VERBOSITY
@click.pass_context
def loadbalancer(
    ctx: click.Context,
    /,
    kubeconfig: Path | None,
    providers: tuple[str, ...],
    default_provider: str | None,
    pool_class: str,
    pools: tuple[Range, ...],
    cluster_name: str,
    leader_elect: bool,
    lease_duration: float,
    renew_deadline: float,
    retry_period: float,
    lease_name: str,
    lease_namespace: str,
    gcp: GcpConfig | None,
    aws_region: str,
    aws_vpc_id: str,
    aws_endpoint_url: str,
    verbosity: int,
    **clouds: Any,
) -> None:
    """Be the controller of Services of type LoadBalancer, in any Kubernetes cluster. Stands where MetalLB would.

    One of it runs in a cluster, anywhere; `kubesvc loadbalancer announce` runs on each node. Pools, advertisements and
    BGP peers are objects of kubesvc.dev/v1beta1; for other API servers they are in examples/loadbalancer/crds.yaml.
    """
    if ctx.invoked_subcommand is not None:
        ctx.obj = kubeconfig
        return
    path = _given(kubeconfig)
    _log(verbosity)
    default = default_provider or providers[0]
    if default not in (*providers, "none"):
        raise click.UsageError(
            f"--default-provider {default} isn't among the providers: give --provider {default}, too"
        )
    config = LoadBalancerConfig(
        pools=pools,
        load_balancer_class=pool_class,
        default_provider="" if default == "none" else default,
        cluster_name=cluster_name,
        gcp=gcp,
        aws=AwsConfig(aws_region, aws_vpc_id, aws_endpoint_url),
        azure=azure_config("azure" in providers, clouds),
    )
    if not lease_duration > renew_deadline > retry_period > 0:
        times = f"{lease_duration:g}, {renew_deadline:g} and {retry_period:g}"
        raise click.UsageError(
            f"--leader-elect-lease-duration, -renew-deadline and -retry-period are {times}: expected each to be longer "
            "than the next"
        )
    leader = LeaderConfig(
        identity=f"{socket.gethostname()}_{uuid.uuid4()}",
        name=lease_name,
        namespace=lease_namespace,
        lease_duration=lease_duration,
        renew_deadline=renew_deadline,
        retry_period=retry_period,
    )
    try:
        standalone.serve(path, config, tuple(dict.fromkeys(providers)), leader if leader_elect else None)
    except* (StandaloneError, KubeconfigError, LoadBalancerError, LeadershipLost) as errors:
        raise click.ClickException(_first(errors)) from None


@loadbalancer.command()
@KUBECONFIG
@click.option("--node-name", metavar="NODE", help="The Node this is.  [default: this machine's host name]")
@click.option(
    "--interface",
    "interfaces",
    multiple=True,
    help="Where ARP and NDP are answered; several may be given.  [default: the one with the Node's address]",
)
@POOL
@click.option(
    "--health-url",
    default="",
    metavar="URL",
    help="Announce only while this answers 200, such as http://127.0.0.1:10256/healthz, the proxy's.",
)
@click.option("--bird", default="bird", show_default=True, help="BIRD 2, for BGP: needed once there is a BGPPeer.")
@click.option(
    "--runtime-directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/run/kubesvc/bgp"),
    show_default=True,
    help="Where BIRD's configuration and control socket are, in a directory named for the node.",
)
@VERBOSITY
@click.pass_context
def announce(
    ctx: click.Context,
    kubeconfig: Path | None,
    node_name: str | None,
    interfaces: tuple[str, ...],
    pools: tuple[Range, ...],
    health_url: str,
    bird: str,
    runtime_directory: Path,
    verbosity: int,
) -> None:
    """Announce load-balancer addresses from this node: by ARP and NDP, and by BGP where there are BGPPeers.

    Runs in the network namespace it is started in, as root.
    """
    path = _given(kubeconfig or ctx.obj)
    _log(verbosity)
    config = AnnounceConfig(
        node_name=(node_name or socket.gethostname()).lower(),
        pools=pools,
        interfaces=interfaces,
        health=health_url,
        bird=bird,
        runtime=runtime_directory,
    )
    try:
        standalone.serve_announcer(path, config)
    except* (StandaloneError, KubeconfigError, LoadBalancerError) as errors:
        raise click.ClickException(_first(errors)) from None


@loadbalancer.command()
@KUBECONFIG
@click.pass_context
def status(ctx: click.Context, kubeconfig: Path | None) -> None:
    """Show pools, Services of type LoadBalancer with their DNS records, and BGP sessions."""

    async def look() -> Overview:
        session = kubeconfigs.load(_given(kubeconfig or ctx.obj))
        try:
            return await overview(session)
        finally:
            await session.close()

    try:
        found = asyncio.run(look())
    except (KubeconfigError, ApiError, Unreachable) as error:
        raise click.ClickException(str(error)) from error
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
    tables = (
        (("POOL", "ADDRESSES", "ASSIGNED", "FREE", "NOT USED BECAUSE"), found.pools),
        (("SERVICE", "CLASS", "DNS RECORD", "WAITS BECAUSE"), found.services),
        (("BGP PEER", "ADDRESS", "NODE", "STATE", "ROUTES", "LAST ERROR"), found.sessions),
    )
    for headers, rows in tables:
        if rows:
            table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
            for header in headers:
                table.add_column(header, no_wrap=True)
            for row in rows:
                table.add_row(*row)
            console.print(table)
            console.print()


def _first(errors: BaseExceptionGroup[Exception]) -> str:
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return str(found)

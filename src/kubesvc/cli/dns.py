"""`kubesvc dns` and `kubesvc dns records`."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
from pathlib import Path
from typing import Any

import click

from kubesvc.api.core import Service
from kubesvc.api.errors import ApiError
from kubesvc.api.registry import SERVICE
from kubesvc.cli.options import box_or_fail, dns_settings, which_box
from kubesvc.client import kubeconfig as kubeconfigs
from kubesvc.client.kubeconfig import KubeconfigError
from kubesvc.client.session import Unreachable
from kubesvc.dns import standalone, workers
from kubesvc.dns.listing import zone_file
from kubesvc.dns.settings import BadSetting, Settings, listed
from kubesvc.dns.standalone import Options, StandaloneError
from kubesvc.dns.zones import BadZone


def _address(text: str, usual: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        host, port = text, str(usual)
    try:
        return str(ipaddress.ip_address(host.strip("[]"))), int(port)
    except ValueError as error:
        raise click.BadParameter(f"{error}; expected IP, IP:PORT or [IPv6]:PORT") from error


def _listen(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    return tuple(_address(text, 53) for text in listed(values))


def _http(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[str, int] | None:
    return _address(value, 9153) if value else None


def _cidrs(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(str(ipaddress.ip_network(text)) for text in listed(values))
    except ValueError as error:
        raise click.BadParameter(f"{error}; expected CIDRs such as 10.96.0.0/16,10.244.0.0/16") from error


@click.group(invoke_without_command=True)
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, dir_okay=False),
    help="How to reach the API server.  [default: the pod's service account]",
)
@click.option(
    "--bind-address",
    "listen",
    metavar="IP[:PORT],...",
    multiple=True,
    default=("0.0.0.0:53",),
    show_default=False,
    callback=_listen,
    help="Where to answer, over UDP and TCP. On a machine with several addresses name them: answers leave from there.  "
    "[default: 0.0.0.0:53]",
)
@click.option(
    "--http-bind-address",
    "http",
    metavar="IP:PORT",
    default="0.0.0.0:9153",
    show_default=True,
    callback=_http,
    help="Where /health, /ready and /metrics answer; empty: nowhere.",
)
@dns_settings
@click.option(
    "--resolv-conf",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("/etc/resolv.conf"),
    show_default=True,
    help="Whose name servers are asked without --forward; looked at again when it changes.",
)
@click.option(
    "--cluster-cidr",
    "cluster_cidrs",
    metavar="CIDR,...",
    multiple=True,
    callback=_cidrs,
    help="Networks of Services and pods, for the reverse zones.  [default: the ServiceCIDRs, the Nodes' podCIDRs]",
)
@click.option("--ttl", type=click.IntRange(0, 3600), default=5, show_default=True, help="Seconds, of records.")
@click.option(
    "--pods",
    "pod_mode",
    type=click.Choice(["disabled", "insecure", "verified"]),
    default="insecure",
    show_default=True,
    help="a-b-c-d.NAMESPACE.pod: never, always, or where a pod has the address.",
)
@click.option("--random-case", is_flag=True, help="Draw the letters' case in questions to other servers (0x20).")
@click.option(
    "--complete-search/--no-complete-search",
    default=True,
    show_default=True,
    help="Complete the search path of pods on this node in one round trip.",
)
@click.option("--announce", is_flag=True, help="Put this server behind kube-dns with an EndpointSlice of its own.")
@click.option(
    "--hostname-override",
    metavar="NODE",
    help="The Node this is.  [default: $NODE_NAME, else this machine's host name]",
)
@click.option("--node-ip", metavar="IP", default="", help="This server's address behind kube-dns.  [default: $POD_IP]")
@click.option("--events/--no-events", "report", default=True, show_default=True, help="Write Events about names.")
@click.option(
    "--probe-external-names",
    "probe_external",
    is_flag=True,
    help="For Events: ask HTTP servers behind ExternalNames whether they accept the Service's name.",
)
@click.option(
    "--lameduck",
    "drain_seconds",
    type=float,
    default=5.0,
    show_default=True,
    help="Seconds to go on answering once told to end, not ready any more. Told again, it ends at once.",
)
@click.option(
    "--workers",
    type=click.IntRange(0, workers.MOST),
    default=0,
    metavar="N",
    help="Processes that answer, each with a copy of the cluster's names.  [default: one for every 4 cores, at most 8]",
)
@click.option("--v", "-v", "verbosity", type=int, default=0, metavar="N", help="Log more: 4 and above, everything.")
@click.pass_context
def dns(
    ctx: click.Context,
    /,
    verbosity: int,
    hostname_override: str | None,
    node_ip: str,
    dns_domain: tuple[str, ...],
    **said: Any,
) -> None:
    """Be the DNS of any Kubernetes cluster, in place of CoreDNS.

    Answers for the cluster's zones from Services and EndpointSlices, for public zones from LoadBalancer Services, and
    asks other servers for the rest.
    """
    if ctx.invoked_subcommand:
        return
    level = logging.DEBUG if verbosity >= 4 else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    lists = ("forward", "zone", "host", "public_zone", "transfer_to", "notify")
    settings = Settings(
        dns_domain=dns_domain or ("cluster.local",), **{name: tuple(filter(None, said.pop(name))) for name in lists}
    )
    try:
        settings.check()
        if node_ip:
            ipaddress.ip_address(node_ip)
    except BadSetting as error:
        raise click.UsageError(str(error)) from error
    except ValueError as error:
        raise click.UsageError(f"--node-ip {error}; expected an IP address") from error
    name = hostname_override or os.environ.get("NODE_NAME") or socket.gethostname()
    address = node_ip or os.environ.get("POD_IP", "")
    try:
        standalone.serve(Options(settings=settings, node_name=name.lower(), node_ip=address, **said))
    except (StandaloneError, KubeconfigError) as error:
        raise click.ClickException(str(error)) from error


@dns.command()
@click.option("--kubeconfig", type=click.Path(path_type=Path, dir_okay=False), help="Of a cluster that isn't a box.")
@click.option(
    "--public-zone", metavar="NAME", multiple=True, help="Of a cluster that isn't a box: a zone served there."
)
@which_box
def records(name: str, directory: Path | None, kubeconfig: Path | None, public_zone: tuple[str, ...]) -> None:
    """Print the public records of LoadBalancer Services, in a zone file's form.

    For domains that are hosted elsewhere these are the records to create there.
    """
    clusters: tuple[str, ...] = ("cluster.local",)
    zones = tuple(text.partition("=")[0] for text in listed(public_zone))
    if kubeconfig is None:
        box = box_or_fail(name, directory)
        kubeconfig, clusters = box.kubeconfig, box.dns.dns_domain
        zones += tuple(text.partition("=")[0] for text in box.public_zone)
    try:
        for line in zone_file(asyncio.run(_services(kubeconfig)), clusters, zones):
            click.echo(line)
    except (KubeconfigError, ApiError, Unreachable, BadZone) as error:
        raise click.ClickException(str(error)) from error


async def _services(path: Path) -> list[Service]:
    session = kubeconfigs.load(path)
    try:
        return (await session.list(SERVICE, Service)).items
    finally:
        await session.close()

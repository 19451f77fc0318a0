"""`kubesvc up`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kubesvc.box import lifecycle
from kubesvc.box.definition import CNI_BIN, DEFAULT_STATE, Options, name_flag
from kubesvc.box.errors import AlreadyRunning, BoxError
from kubesvc.box.families import WORDS
from kubesvc.cli.down import take_down
from kubesvc.cli.options import box_or_fail, dns_settings, which_box
from kubesvc.cli.progress import show
from kubesvc.loadbalancer.providers.desk.model import CLOUDS


@click.command()
@which_box
@click.option("--nodes", type=click.IntRange(1, 100), help="How many nodes.  [default: 1]")
@click.option(
    "--ip-family", type=click.Choice(WORDS), help="Which IP families it has; dual: both, IPv4 first.  [default: ipv4]"
)
@click.option("--service-cidr", metavar="CIDR[,CIDR]", help="Where cluster IPs come from.  [default: 10.96.0.0/16]")
@click.option("--pod-cidr", metavar="CIDR[,CIDR]", help="Where pods' addresses come from.  [default: 10.244.0.0/16]")
@click.option("--node-port-range", metavar="FIRST-LAST", help="Ports for NodePort Services.  [default: 30000-32767]")
@click.option("--node-cidr", metavar="CIDR[,CIDR]", help="The nodes' own network.  [default: a free one]")
@click.option("--lb-pool", metavar="FIRST-LAST,...", help="Load-balancer addresses, inside --node-cidr.")
@click.option(
    "--cloud", type=click.Choice(CLOUDS), help="Load balancers with the manners of a cloud.  [default: a pool]"
)
@click.option("--cloud-speed", type=float, help="Press the cloud's health checks together, such as 10.  [default: 1]")
@click.option(
    "--mtu", type=int, help="Bytes of a packet between pods.  [default: 1500, or less if the way out has less]"
)
@click.option("--cni", metavar="FILE|DIR", help="Pods' networks by CNI plugins: their configuration, '' for our own.")
@click.option("--cni-bin", metavar="DIR:...", help=f"Where CNI plugins are.  [default: {CNI_BIN}]")
@click.option("--node-grace", type=float, help="Seconds of silence after which a node counts as lost.  [default: 40]")
@click.option(
    "--certificate-lifetime",
    type=float,
    metavar="SECONDS",
    help="How long the box's certificates live; they are renewed before they expire.  [default: a year]",
)
@click.option(
    "--audit-log",
    metavar="FILE",
    help="Write who did what to the API to this file, an audit.k8s.io/v1 Event a line; '' for none.  [default: none]",
)
@click.option(
    "--audit-policy",
    metavar="FILE",
    help="An audit.k8s.io/v1 Policy: what is written of which requests; '' for the metadata of all.",
)
@click.option("--egress/--no-egress", default=None, help="Let pods out through this machine.  [default: no]")
@click.option(
    "--allow-external-ips/--no-allow-external-ips",
    default=None,
    help="Let Services claim any address with spec.externalIPs, and so its traffic.  [default: no]",
)
@dns_settings
@click.option(
    "--node-port-addresses",
    metavar="CIDR,...",
    help="Which addresses of a node its node ports answer on: CIDRs, 'primary', 'all'.  [default: primary]",
)
@click.option(
    "--publish",
    metavar="[HOSTPORT:]NODEPORT",
    multiple=True,
    help="Have this machine's localhost:HOSTPORT answer as node port NODEPORT; /udp after it for UDP; repeatable, "
    "'' for none.",
)
@click.option("--detach", "-d", is_flag=True, help="Return once the box is ready, and leave it running.")
def up(name: str, directory: Path | None, detach: bool, dns_domain: tuple[str, ...], **said: Any) -> None:
    """Start a box: a cluster for Services on this machine.

    Nodes are network namespaces; the host's own network is left alone. Objects and addresses are kept: after a
    `down`, a crash or a reboot, `up` goes on with them, and options left out are those the box was made with.
    """
    where = directory.absolute() if directory else DEFAULT_STATE / name
    try:
        names = ("forward", "zone", "host", "public_zone", "transfer_to", "notify", "publish")
        lists = {option: said.pop(option) or None for option in names}
        if dns_domain:
            lists["more_dns_domains"] = dns_domain[1:]
        for option in ("audit_log", "audit_policy", "cni"):
            if said[option]:
                said[option] = str(Path(said[option]).absolute())
        options = Options(**said, **lists, dns_domain=dns_domain[0] if dns_domain else None)
        box = lifecycle.up(name, where, options, detach=detach, show=show)
    except AlreadyRunning as running:
        box = box_or_fail(name, directory)
        click.echo(f"{running}\nexport KUBECONFIG={box.kubeconfig}")
        if options != Options():
            again = f"`kubesvc down{name_flag(name)}` first, then `kubesvc up` with them"
            beside = "For a box beside it give another --name"
            what = "It goes on as it was started; options take effect at its next start"
            click.echo(f"{what}: {again}. {beside}.", err=True)
        return
    except BoxError as error:
        raise click.ClickException(str(error)) from error
    flag = name_flag(name)
    click.echo(f"\nReady. Next:\n\n  export KUBECONFIG=$(kubesvc kubeconfig{flag})    # {box.kubeconfig}")
    click.echo("  kubectl get nodes\n")
    for published in box.publications:
        click.echo(f"localhost:{published.host_port}/{published.protocol} is node port {published.node_port}.")
    if detach:
        click.echo(f"`kubesvc status{flag}` shows the box, `kubesvc down{flag}` ends it.")
        return
    try:
        click.echo("The box runs until Ctrl-C (with --detach it runs on by itself). Its data is kept.")
        ended = lifecycle.wait(box)
    except KeyboardInterrupt:  # sooner than `wait` could see to it
        ended = False
    if ended:
        raise click.ClickException(
            f"the supervisor ended unasked (see {box.path / 'logs' / 'supervisor.log'}). "
            f"Pods are left as they are: `kubesvc up{flag}` goes on with them, `kubesvc down{flag}` ends them"
        )
    click.echo()
    take_down(box, purge=False)

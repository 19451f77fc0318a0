"""What a load-balancer controller and an announcer are told. Nothing is read from the environment."""

from __future__ import annotations

from pathlib import Path

import msgspec

from kubesvc.api.balancing import Range
from kubesvc.loadbalancer.providers.azure.config import AzureConfig

POOL_CLASS = "kubesvc.dev/pool"


class GcpConfig(msgspec.Struct, frozen=True):
    """Provider gcp's. `network` and `subnetwork` are names, `node_tags` network tags of the nodes' VMs."""

    project: str
    region: str
    network: str = "default"
    subnetwork: str = ""
    """Where internal load balancers have their addresses; "": the network's own of the region (auto mode)."""
    node_tags: tuple[str, ...] = ()
    """Firewall rules are for VMs with one of these; none: for all of the network."""
    endpoint: str = ""
    """In place of https://compute.googleapis.com; with http:// no credentials are sent."""
    timeout: float = 30.0
    tries: int = 6
    first_delay: float = 0.5
    last_delay: float = 10.0
    remembered: float = 60.0
    """What was listed is trusted so long."""
    resync: float = 300.0
    """How often every Service is looked at, to mend what others changed."""


class AwsConfig(msgspec.Struct, frozen=True):
    """Provider aws's. Empty texts: as boto3 finds out, and the nodes' VPC. Credentials are boto3's to find."""

    region: str = ""
    vpc_id: str = ""
    endpoint_url: str = ""
    node_ports: tuple[int, int] = (30000, 32767)
    """The cluster's range: opened on nodes as one."""
    resync: float = 3600.0
    """Seconds after which everything in AWS is looked at again, whether or not something changed."""


class LoadBalancerConfig(msgspec.Struct, frozen=True):
    """The controller's. Delays are seconds."""

    pools: tuple[Range, ...] = ()
    """Addresses to hand out beside those of IPAddressPool objects: the pool `default`."""
    load_balancer_class: str = POOL_CLASS
    default_provider: str = "pool"
    """The name of the provider that serves Services without a loadBalancerClass; "": another load balancer does."""
    cluster_name: str = "kubernetes"
    """What a cloud's objects are tagged with, to be found again: one of its own for every cluster of an account."""
    aws: AwsConfig = AwsConfig()
    azure: AzureConfig | None = None
    """For provider azure."""
    alone: bool = False
    """No other load balancer is here: a class that none of ours owns is a mistake, and the Service says so."""
    workers: int = 16  # writes of several are one commit of the store
    cloud: str = ""
    """Whose manners provider desk has: aws, gcp or azure."""
    desk: Path = Path("/run/kubesvc/desk")
    """Where provider desk writes its balancers down."""
    gcp: GcpConfig | None = None
    first_retry: float = 5.0
    last_retry: float = 300.0
    remind: float = 1800.0
    """How often a Service that waits says why, in an event."""


class AnnounceConfig(msgspec.Struct, frozen=True):
    """One node's announcer's. Times are seconds."""

    node_name: str
    pools: tuple[Range, ...] = ()
    """Addresses that are announced beside those of IPAddressPool objects: a cloud's are that cloud's to announce."""
    interfaces: tuple[str, ...] = ("eth0",)
    """Where ARP and NDP are answered, unless an L2Advertisement names some of them."""
    announcements: int = 3
    """How often a take-over is told. More than once, since the node before may still answer a last question."""
    announcement_interval: float = 1.0
    heartbeat: float = 0.2
    silence: float = 0.9
    """An announcer that isn't heard for so long is taken for dead."""
    health: str = ""
    """URL that answers 200 while this node can serve (the proxy's /healthz); "": it always can."""
    bird: str = "bird"
    """BIRD 2, as a command; asked for only once there is a BGPPeer."""
    runtime: Path = Path("/run/kubesvc/bgp")
    """Where BIRD's configuration and control socket are, in a directory named for the node."""

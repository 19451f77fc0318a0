"""What a box is: the options it was made with, checked, and remembered in `box.json` so that `up` finds them again."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from kubesvc.box import families
from kubesvc.box.errors import BoxError
from kubesvc.box.families import Address, Network
from kubesvc.box.ranges import NodeNetwork, parse_pools
from kubesvc.dns.settings import BadSetting, Settings
from kubesvc.loadbalancer.providers.desk.model import CLOUDS
from kubesvc.loadbalancer.providers.desk.model import DOMAIN as CLOUD_DOMAIN
from kubesvc.proxy.config import check_node_port_addresses
from kubesvc.proxy.localhost import FORWARDER_PORT

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
DEFAULT_STATE = Path("/var/lib/kubesvc")
RUN = Path("/run/kubesvc")
API_PORT = 6443
DNS_PORT = 10053
DNS_HEALTH_PORT = 9153  # where CoreDNS has its metrics
AGENT_PORT = 10250
PROXY_METRICS_PORT = 10249  # as kube-proxy's
PROXY_HEALTH_PORT = 10256
CNI_BIN = "/opt/cni/bin:/usr/lib/cni"  # where they are by custom, and where Debian has them
MIN_MTU, MAX_MTU = (576, 1280), 65535  # bytes: what IPv4 and IPv6 ask of a link, and what a veth can have
OWN_PORTS = frozenset((DNS_PORT, DNS_HEALTH_PORT, AGENT_PORT, PROXY_METRICS_PORT, PROXY_HEALTH_PORT, FORWARDER_PORT))
"""What every node listens on itself: no Service's node port."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the user said; None is what they left out, to be taken from the remembered box or a default."""

    nodes: int | None = None
    ip_family: str | None = None
    service_cidr: str | None = None
    pod_cidr: str | None = None
    node_port_range: str | None = None
    node_cidr: str | None = None
    lb_pool: str | None = None
    mtu: int | None = None
    cni: str | None = None
    cni_bin: str | None = None
    dns_domain: str | None = None
    egress: bool | None = None
    forward: tuple[str, ...] | None = None
    zone: tuple[str, ...] | None = None
    more_dns_domains: tuple[str, ...] | None = None
    host: tuple[str, ...] | None = None
    public_zone: tuple[str, ...] | None = None
    transfer_to: tuple[str, ...] | None = None
    notify: tuple[str, ...] | None = None
    node_grace: float | None = None
    certificate_lifetime: float | None = None
    audit_log: str | None = None
    audit_policy: str | None = None
    allow_external_ips: bool | None = None
    publish: tuple[str, ...] | None = None
    node_port_addresses: str | None = None
    cloud: str | None = None
    cloud_speed: float | None = None


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """A node port on the host's localhost, as --publish says it."""

    host_port: int
    node_port: int
    protocol: str = "tcp"  # or udp

    def __str__(self) -> str:
        ports = f"{self.host_port}:{self.node_port}" if self.host_port != self.node_port else f"{self.node_port}"
        return ports + ("" if self.protocol == "tcp" else f"/{self.protocol}")

    @classmethod
    def parse(cls, text: str) -> Publication:
        """PORT or HOSTPORT:NODEPORT, with /udp for UDP. Raises ValueError."""
        ports, _, protocol = text.partition("/")
        host, colon, node = ports.partition(":")
        found = cls(host_port=int(host), node_port=int(node if colon else host), protocol=protocol or "tcp")
        if found.protocol not in ("tcp", "udp") or not all(0 < p < 65536 for p in (found.host_port, found.node_port)):
            raise ValueError(text)
        return found


class AddedNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node added to a running box. `number` says which address it has; 0 before it has one."""

    name: str
    number: int = 0
    zone: str = ""
    labels: dict[str, str] = {}


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """A box. Made by `define`, which checks it; strings are as in box.json."""

    name: str
    directory: str
    nodes: int = 1
    ip_family: str = families.IPV4
    service_cidr: str = families.SERVICES[4]  # one of each family, the primary first, separated by a comma
    pod_cidr: str = families.PODS[4]  # the same
    node_port_range: str = "30000-32767"
    node_cidr: str = ""  # the same
    lb_pool: str = ""
    mtu: int = 0  # bytes; 0: that of what carries the traffic
    cni: str = ""  # CNI configuration, a file or directory; "": pods' networks are the node agent's own
    cni_bin: str = CNI_BIN  # directories of CNI plugins, separated by colons
    dns_domain: str = "cluster.local"
    egress: bool = False
    forward: tuple[str, ...] = ()  # DNS upstreams; none: this machine's own
    zone: tuple[str, ...] = ()  # NAME=ADDRESS[,ADDRESS …]: who is asked for the names in a DNS zone
    more_dns_domains: tuple[str, ...] = ()  # DNS zones with the same names again
    host: tuple[str, ...] = ()  # NAME=ADDRESS[,ADDRESS …]: names outside the zones, and their addresses
    public_zone: tuple[str, ...] = ()  # NAME[=SERVER …]: zones of Services' public names
    transfer_to: tuple[str, ...] = ()  # CIDRs of servers that may fetch whole zones
    notify: tuple[str, ...] = ()  # servers that are told when a zone has changed
    node_grace: float = 40.0  # seconds without a sign of life after which a node counts as lost
    certificate_lifetime: float = 365 * 86400.0  # seconds that a certificate lives; the authority's lives ten years
    audit_log: str = ""  # a file; "": none
    audit_policy: str = ""  # a file; "": metadata of everything
    allow_external_ips: bool = False
    publish: tuple[str, ...] = ()  # [HOSTPORT:]NODEPORT[/udp]
    node_port_addresses: str = "primary"  # CIDRs or words, separated by commas
    cloud: str = ""  # whose load balancers it has: aws, gcp or azure; "": a pool's
    cloud_speed: float = 1.0  # what the cloud's health checks are pressed together by
    added: tuple[AddedNode, ...] = ()
    removed: tuple[str, ...] = ()  # of node1 to nodeN
    api_port: int = 0  # on the host's 127.0.0.1

    @property
    def path(self) -> Path:
        """Where the data is: objects, certificates, logs."""
        return Path(self.directory)

    @property
    def run_path(self) -> Path:
        """Where what a reboot ends is: the lock, the status, the pods' namespaces and mounts."""
        return RUN / self.name

    @property
    def objects(self) -> Path:
        """The store's file."""
        return self.path / "objects.db"

    @property
    def images(self) -> Path:
        """The store of container images, which all nodes use."""
        return self.path / "images"

    @property
    def balancers(self) -> Path:
        """What the cloud remembers."""
        return self.path / "balancers"

    @property
    def kubeconfig(self) -> Path:
        return self.path / "kubeconfig"

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP families, 4 and 6, the primary first."""
        return tuple(network.version for network in self.services)

    @property
    def networks(self) -> tuple[NodeNetwork, ...]:
        """The node network of each family."""
        found = families.networks(self.node_cidr)
        return tuple(map(NodeNetwork, found, parse_pools(self.lb_pool, found)))

    @property
    def network(self) -> NodeNetwork:
        """The primary one."""
        return self.networks[0]

    @property
    def services(self) -> tuple[Network, ...]:
        return families.networks(self.service_cidr)

    @property
    def pods(self) -> tuple[Network, ...]:
        return families.networks(self.pod_cidr)

    @property
    def kubernetes_ip(self) -> Address:
        """The cluster IP of default/kubernetes: the first of the primary Service range."""
        return self.services[0][1]

    @property
    def dns_ip(self) -> Address:
        """The cluster IP of kube-system/kube-dns: the tenth of the primary Service range."""
        return self.services[0][10]

    @property
    def dns(self) -> Settings:
        """What every node's DNS server is told by the user."""
        return Settings(
            dns_domain=(self.dns_domain, *self.more_dns_domains),
            forward=self.forward,
            zone=(*self.zone, f"{CLOUD_DOMAIN}={self.network.cloud}") if self.cloud and self.node_cidr else self.zone,
            host=self.host,
            public_zone=self.public_zone,
            transfer_to=self.transfer_to,
            notify=self.notify,
        )

    @property
    def port_range(self) -> tuple[int, int]:
        first, _, last = self.node_port_range.partition("-")
        return int(first), int(last)

    @property
    def publications(self) -> list[Publication]:
        return list(map(Publication.parse, self.publish))

    @property
    def node_names(self) -> list[str]:
        own = (f"node{number}" for number in range(1, self.nodes + 1))
        return [name for name in own if name not in self.removed] + [node.name for node in self.added]

    def node_ip(self, node: str) -> Address:
        """The primary one."""
        return self.node_ips(node)[0]

    def node_ips(self, node: str) -> tuple[Address, ...]:
        """One of each family. Raises BoxError where a node network is full."""
        found = self.added_node(node)
        number = found.number if found else int(node.removeprefix("node"))
        return tuple(network.node(number) for network in self.networks)

    def added_node(self, name: str) -> AddedNode | None:
        return next((node for node in self.added if node.name == name), None)

    def namespace(self, part: str) -> str:
        """The name `ip netns` shows: kubesvc-NAME-node1, kubesvc-NAME-net."""
        return f"kubesvc-{self.name}-{part}"


LISTS = ("forward", "zone", "more_dns_domains", "host", "public_zone", "transfer_to", "notify", "publish")
"""Options that '' makes empty again."""
FIXED = ("ip_family", "service_cidr", "pod_cidr", "node_cidr", "lb_pool", "dns_domain", "cloud")
"""Options that objects already made depend on: they can't change while the data is kept."""


def check_name(name: str) -> None:
    """Raises BoxError unless `name` can be part of a namespace's name."""
    if not NAME.fullmatch(name):
        raise BoxError(f"--name {name!r}: expected up to 32 lower-case letters, digits and '-', such as 'shop'")


def define(name: str, directory: Path, options: Options, remembered: Box | None) -> Box:
    """The box that `options` and what is remembered make; node_cidr and api_port may still be open. Raises BoxError."""
    check_name(name)
    said = {k: v for k, v in msgspec.structs.asdict(options).items() if v is not None}
    said |= {option: () for option in LISTS if said.get(option) == ("",)}
    if remembered is not None:
        for option in FIXED:
            before = getattr(remembered, option)
            if option in said and before and said[option] != before:
                flag = "--" + option.replace("_", "-")
                raise BoxError(
                    f"box {name!r} was made with {flag} {before}, not {said[option]}; objects depend on it. "
                    f"Make it anew with `kubesvc down --name {name} --purge`, or use another --name"
                )
        box = msgspec.structs.replace(remembered, directory=str(directory), **said)
    else:
        box = Box(name=name, directory=str(directory), **_with_families(said))
    _check(box)
    return box


def _with_families(said: dict[str, Any]) -> dict[str, Any]:
    """What the user said, and the networks they left out, of the families of those they didn't."""
    cidrs = [said.get(option, "") for option in ("service_cidr", "pod_cidr", "node_cidr")]
    versions = families.versions(said.get("ip_family", ""), cidrs)
    usual = {
        "service_cidr": ",".join(families.SERVICES[version] for version in versions),
        "pod_cidr": ",".join(families.PODS[version] for version in versions),
    }
    return usual | said | {"ip_family": families.word(versions)}


def _check(box: Box) -> None:
    if not 1 <= box.nodes <= 100:
        raise BoxError(f"--nodes {box.nodes}: expected 1 to 100")
    if any(node.number <= box.nodes for node in box.added):
        names = ", ".join(node.name for node in box.added if node.number <= box.nodes)
        raise BoxError(f"--nodes {box.nodes}: {names} has an address of theirs; `kubesvc node remove` it first")
    if box.cloud not in ("", *CLOUDS):
        raise BoxError(f"--cloud {box.cloud!r}: expected one of {', '.join(CLOUDS)}")
    if box.cloud and box.versions != (4,):
        raise BoxError(f"--cloud {box.cloud} with --ip-family {box.ip_family}: expected ipv4, which these clouds speak")
    if not 1 <= box.cloud_speed <= 1000:
        raise BoxError(f"--cloud-speed {box.cloud_speed}: expected 1 to 1000")
    if not box.node_grace >= 1:
        raise BoxError(f"--node-grace {box.node_grace}: expected at least 1 second")
    if not box.certificate_lifetime >= 15:
        raise BoxError(f"--certificate-lifetime {box.certificate_lifetime}: expected at least 15 seconds")
    _check_networks(box)
    if box.mtu and not (least := MIN_MTU[6 in box.versions]) <= box.mtu <= MAX_MTU:
        raise BoxError(f"--mtu {box.mtu}: expected {least} to {MAX_MTU} bytes")
    try:
        first, last = box.port_range
    except ValueError:
        first, last = 0, 0
    if not 1 <= first <= last <= 65535:
        raise BoxError(f"--node-port-range {box.node_port_range!r}: expected FIRST-LAST within 1-65535")
    try:
        check_node_port_addresses(box.node_port_addresses.split(","))
    except ValueError as error:
        raise BoxError(f"--node-port-addresses {box.node_port_addresses!r}: {error}") from error
    _check_published(box)
    try:
        box.dns.check()
    except BadSetting as error:
        raise BoxError(str(error)) from error


def _check_networks(box: Box) -> None:
    versions = tuple(network.version for network in families.parse("--service-cidr", box.service_cidr))
    networks = {"--service-cidr": box.service_cidr, "--pod-cidr": box.pod_cidr}
    if box.node_cidr:
        networks["--node-cidr"] = box.node_cidr
    elif box.lb_pool:
        raise BoxError(f"--lb-pool {box.lb_pool} lies inside the node network: give --node-cidr with it")
    if families.word(versions) != box.ip_family:
        raise BoxError(f"--service-cidr {box.service_cidr} is not what --ip-family {box.ip_family} says")
    found = [(flag, network) for flag, text in networks.items() for network in families.check(flag, text, versions)]
    if box.node_cidr:
        for own in box.networks:
            own.node(box.nodes)
    for index, (flag, network) in enumerate(found):
        for other, another in found[index + 1 :]:
            if network.version == another.version and network.overlaps(another):
                raise BoxError(f"{flag} {network} overlaps {other} {another}: they must be apart")
    families.check_pods(box.pods, box.nodes, f"--nodes {box.nodes}")


def _check_published(box: Box) -> None:
    taken: dict[tuple[int, str], str] = {}  # port and protocol of the host -> who asked for it
    for text in box.publish:
        try:
            found = Publication.parse(text)
        except ValueError as error:
            expected = "expected PORT or HOSTPORT:NODEPORT, such as 8080:30080, with /udp for UDP"
            raise BoxError(f"--publish {text!r}: {expected}") from error
        place = (found.host_port, found.protocol)
        if place in taken:
            raise BoxError(f"--publish {text}: {taken[place]} has port {found.host_port} already; give another")
        taken[place] = f"--publish {text}"


def remember(box: Box) -> None:
    """Write box.json beside the data, and beside the run-time state so that other commands find the data."""
    text = msgspec.json.format(msgspec.json.encode(box), indent=2)
    for directory in (box.path, box.run_path):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = directory / "box.json.new"
        part.write_bytes(text)
        part.replace(directory / "box.json")


def recall(directory: Path) -> Box | None:
    """The box remembered in `directory`, or None. Raises BoxError when its box.json can't be read."""
    file = directory / "box.json"
    try:
        return msgspec.json.decode(file.read_bytes(), type=Box)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise BoxError(f"{file} can't be read: {error}; put it right, or remove it to make the box anew") from error


def find(name: str, directory: Path | None) -> Box | None:
    """The box called `name`: in `directory` when given, else where it runs, else in the default place."""
    check_name(name)
    if directory is not None:
        return recall(directory)
    return recall(RUN / name) or recall(DEFAULT_STATE / name)


def name_flag(name: str) -> str:
    """What to add to a command, so that it means box `name`."""
    return "" if name == "default" else f" --name {name}"


def names() -> list[str]:
    """Every box this machine knows of: running, or kept in the default place."""
    found = {path.parent.name for root in (RUN, DEFAULT_STATE) for path in root.glob("*/box.json")}
    return sorted(found)


class _Neighbour(msgspec.Struct):
    node_cidr: str = ""


def networks_of_others(name: str) -> list[Network]:
    """The node networks of every box but this one. What can't be read, a newer kubesvc's perhaps, is passed over."""
    found: list[Network] = []
    for root in (RUN, DEFAULT_STATE):
        for file in root.glob("*/box.json"):
            if file.parent.name != name:
                with suppress(OSError, msgspec.DecodeError, ValueError):
                    found += families.networks(msgspec.json.decode(file.read_bytes(), type=_Neighbour).node_cidr)
    return found


NODE_NAME = re.compile(r"[a-z][a-z0-9]{0,14}")
NOT_NODES = frozenset(("bridge", "cloud", "host", "lo", "net"))  # interfaces and namespaces of the box's own


def with_node(box: Box, node: AddedNode) -> Box:
    """The box with one more node, at the lowest address that is free. Raises BoxError."""
    if not NODE_NAME.fullmatch(node.name) or node.name in NOT_NODES:
        raise BoxError(f"node {node.name!r}: expected up to 15 lower-case letters and digits, such as node4 or east1")
    if node.name in box.node_names:
        raise BoxError(f"node {node.name!r} is part of box {box.name!r} already")
    if len(box.node_names) >= 100:
        raise BoxError("a box has at most 100 nodes")
    own = f"node{int(node.name[4:])}" if node.name[4:].isdigit() and node.name.startswith("node") else ""
    if own == node.name and node.name in box.removed and not (node.zone or node.labels):
        return msgspec.structs.replace(box, removed=tuple(name for name in box.removed if name != node.name))
    taken = {*range(1, box.nodes + 1), *(other.number for other in box.added)}
    number = next(n for n in range(1, 102) if n not in taken)
    wider = msgspec.structs.replace(box, added=(*box.added, msgspec.structs.replace(node, number=number)))
    wider.node_ips(node.name)
    families.check_pods(wider.pods, len(wider.node_names), f"a box with node {node.name!r} needs")
    return wider


def without_node(box: Box, name: str) -> Box:
    """Raises BoxError."""
    if name not in box.node_names:
        raise BoxError(f"box {box.name!r} has no node {name!r}: its nodes are {', '.join(box.node_names)}")
    if len(box.node_names) == 1:
        raise BoxError(
            f"node {name!r} is the last of box {box.name!r}: `kubesvc down{name_flag(box.name)}` ends the box"
        )
    if box.added_node(name):
        return msgspec.structs.replace(box, added=tuple(node for node in box.added if node.name != name))
    return msgspec.structs.replace(box, removed=(*box.removed, name))

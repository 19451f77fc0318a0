"""The generated files of a pod's /etc: hosts, resolv.conf, and the users of the host image. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kubesvc.api.pods import HostAlias, Pod

MAX_SEARCHES, MAX_SEARCH_LENGTH = 32, 2048  # glibc's own limits fell in 2.26; upstream keeps to these
MAX_NAMESERVERS = 3
MAX_HOSTNAME = 64  # characters, the kernel's

PASSWD = """root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
postgres:x:70:70:postgres:/var/lib/postgresql:/bin/sh
app:x:1000:1000:app:/home/app:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
GROUP = """root:x:0:
daemon:x:1:
bin:x:2:
tty:x:5:
www-data:x:33:
postgres:x:70:
app:x:1000:
nogroup:x:65534:
"""
NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n"


def hostname(pod: Pod) -> str:
    """spec.hostname or the pod's name, cut to the kernel's 64 characters (63, as upstream does)."""
    return (pod.spec.hostname or pod.name)[:63].rstrip("-.")


def domain_name(pod: Pod, zone: str) -> str:
    """The pod's fully qualified name when spec.subdomain gives it one, else ""."""
    if not pod.spec.subdomain:
        return ""
    return f"{hostname(pod)}.{pod.spec.subdomain}.{pod.namespace}.svc.{zone}"


class HostnameTooLong(Exception):
    """setHostnameAsFQDN asks for more characters than the kernel's host name has."""


def kernel_hostname(pod: Pod, node_name: str, zone: str) -> str:
    """What `hostname` prints in the pod: its own name, with setHostnameAsFQDN the whole one; on the node's own network
    the node's. Raises HostnameTooLong."""
    if pod.spec.host_network:
        return node_name[:MAX_HOSTNAME]
    whole = domain_name(pod, zone)
    if not pod.spec.set_hostname_as_fqdn or not whole:
        return hostname(pod)
    if len(whole) > MAX_HOSTNAME:
        raise HostnameTooLong(
            f"Failed to construct FQDN from Pod hostname and cluster domain, FQDN {whole} is too long "
            f"({MAX_HOSTNAME} characters is the max, {len(whole)} characters requested)"
        )
    return whole


def hosts(pod: Pod, addresses: Sequence[str], zone: str) -> str:
    """/etc/hosts, with upstream's lines: localhost, the pod by name, spec.hostAliases."""
    names = [n for n in (domain_name(pod, zone), hostname(pod)) if n]
    lines = [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
        *("\t".join([address, *names]) for address in addresses),
    ]
    return "\n".join([*lines, *_aliases(pod.spec.host_aliases)]) + "\n"


def hosts_of_node(machine: str, pod: Pod) -> str:
    """/etc/hosts of a pod on the node's own network: the machine's, with spec.hostAliases."""
    lines = ["# Kubernetes-managed hosts file (host network).", *machine.splitlines(), *_aliases(pod.spec.host_aliases)]
    return "\n".join(lines) + "\n"


def _aliases(aliases: Sequence[HostAlias]) -> list[str]:
    found = ["\t".join([alias.ip, *alias.hostnames]) for alias in aliases]
    return ["", "# Entries added by HostAliases.", *found] if found else []


class Resolver(msgspec.Struct, frozen=True):
    """The three things a resolv.conf says."""

    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def render(self) -> str:
        lines = [f"nameserver {server}" for server in self.nameservers]
        if self.searches:
            lines.insert(0, "search " + " ".join(self.searches))
        if self.options:
            lines.append("options " + " ".join(self.options))
        return "\n".join(lines) + "\n"


def parse_resolver(text: str) -> Resolver:
    """The machine's own resolv.conf; lines that aren't understood are left out."""
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        match line.split("#")[0].split():
            case ["nameserver", server, *_]:
                servers.append(server)
            case ["search" | "domain", *names]:
                searches = names
            case ["options", *more]:
                options += more
    return Resolver(tuple(servers), tuple(searches), tuple(options))


def resolver(pod: Pod, machine: Resolver, cluster_dns: Sequence[str], zone: str) -> Resolver:
    """What the pod's dnsPolicy and dnsConfig come to. On the node's own network ClusterFirst means Default."""
    policy = pod.spec.dns_policy
    if policy == "ClusterFirst" and pod.spec.host_network:
        policy = "Default"
    if policy == "None":
        found = Resolver()
    elif policy == "Default" or not cluster_dns:
        found = machine
    else:
        searches = (f"{pod.namespace}.svc.{zone}", f"svc.{zone}", zone)
        found = Resolver(tuple(cluster_dns), (*searches, *machine.searches), ("ndots:5",))
    config = pod.spec.dns_config
    if config is None:
        return found
    options = {option.split(":")[0]: option for option in found.options}
    for extra in config.options:
        options[extra.name] = extra.name if extra.value is None else f"{extra.name}:{extra.value}"
    servers = tuple(dict.fromkeys((*found.nameservers, *config.nameservers)))
    return Resolver(servers, tuple(dict.fromkeys((*found.searches, *config.searches))), tuple(options.values()))


def within_limits(wanted: Resolver) -> tuple[Resolver, list[str]]:
    """What resolvers can use of `wanted`, and what to say of the rest, in upstream's words."""
    told = []
    servers = wanted.nameservers[:MAX_NAMESERVERS]
    if servers != wanted.nameservers:
        told.append(_exceeded("Nameserver", "nameservers", "nameserver", servers))
    searches = wanted.searches[:MAX_SEARCHES]
    while len(" ".join(searches)) > MAX_SEARCH_LENGTH:
        searches = searches[:-1]
    if searches != wanted.searches:
        told.append(_exceeded("Search Line", "search paths", "search", searches))
    return Resolver(servers, searches, wanted.options), told


def _exceeded(what: str, left_out: str, line: str, applied: Sequence[str]) -> str:
    shown = " ".join(applied)
    return f"{what} limits were exceeded, some {left_out} have been omitted, the applied {line} line is: {shown}"

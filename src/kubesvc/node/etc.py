"""The generated files of a pod's /etc: hosts, resolv.conf, and the users of the host image. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kubesvc.api.core import Pod

MAX_SEARCHES = 32  # glibc's own limit fell in 2.26; upstream validates this many
MAX_NAMESERVERS = 3

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


def hosts(pod: Pod, address: str, zone: str) -> str:
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
        "\t".join([address, *names]),
    ]
    if pod.spec.host_aliases:
        lines += ["", "# Entries added by HostAliases."]
        lines += ["\t".join([alias.ip, *alias.hostnames]) for alias in pod.spec.host_aliases]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Resolver:
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
    servers = tuple(dict.fromkeys((*found.nameservers, *config.nameservers)))[:MAX_NAMESERVERS]
    return Resolver(
        servers, tuple(dict.fromkeys((*found.searches, *config.searches)))[:MAX_SEARCHES], tuple(options.values())
    )

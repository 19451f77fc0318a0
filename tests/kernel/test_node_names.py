"""Names in pods for real: resolv.conf by policy, the host name, /etc/hosts, and the variables Services leave."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from kubesvc.api import registry
from support.node import NodeBed, node_bed

FOREVER = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
CLUSTER = ["search default.svc.cluster.local svc.cluster.local cluster.local corp.example", "nameserver 10.96.0.10"]
MACHINE = ["search corp.example", "nameserver 192.0.2.53", "options timeout:2"]


@pytest.fixture
async def bed() -> AsyncIterator[NodeBed]:
    """A node whose machine has files of its own to hand down."""
    async with node_bed() as made:
        resolv, hosts = made.directory / "resolv.conf", made.directory / "hosts"
        resolv.write_text("nameserver 192.0.2.53\nsearch corp.example\noptions timeout:2\n")
        hosts.write_text("127.0.0.1 localhost\n192.0.2.9 printer\n")
        made.config = replace(made.config, resolv_conf=resolv, hosts=hosts)
        await made.start_agent()
        yield made


async def printed(bed: NodeBed, name: str, *command: str) -> list[str]:
    """The lines a command prints in a running pod."""
    code, out, error = await bed.execute(name, list(command))
    assert code == 0, error
    return out.decode().splitlines()


async def run(bed: NodeBed, name: str, **spec: Any) -> None:
    await bed.create(name, FOREVER, **spec)
    await bed.running(name)


async def test_each_dns_policy(bed: NodeBed) -> None:
    """On the node's own network ClusterFirst means Default, and ClusterFirstWithHostNet what it says."""
    given = {"nameservers": ["192.0.2.7"], "searches": ["own.example"]}
    pods = {
        "cluster": ({"dnsPolicy": "ClusterFirst"}, [*CLUSTER, "options ndots:5"]),
        "default": ({"dnsPolicy": "Default"}, MACHINE),
        "none": ({"dnsPolicy": "None", "dnsConfig": given}, ["search own.example", "nameserver 192.0.2.7"]),
        "on-host": ({"dnsPolicy": "ClusterFirst", "hostNetwork": True}, MACHINE),
        "with-host": ({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": True}, [*CLUSTER, "options ndots:5"]),
    }
    for name, (spec, _) in pods.items():
        await bed.create(name, FOREVER, **spec)
    for name, (_, lines) in pods.items():
        await bed.running(name)
        assert await printed(bed, name, "cat", "/etc/resolv.conf") == lines, name


async def test_dns_config_is_merged_and_cut_to_what_resolvers_can_use(bed: NodeBed) -> None:
    config = {
        "nameservers": ["192.0.2.1", "10.96.0.10", "192.0.2.2"],
        "searches": ["own.example", "svc.cluster.local"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    }
    await run(bed, "few", dnsConfig=config)
    assert await printed(bed, "few", "cat", "/etc/resolv.conf") == [
        f"{CLUSTER[0]} own.example",
        "nameserver 10.96.0.10",
        "nameserver 192.0.2.1",
        "nameserver 192.0.2.2",
        "options ndots:2 edns0",
    ]
    await run(bed, "many", dnsConfig={"nameservers": ["192.0.2.1", "192.0.2.2", "192.0.2.3"]})
    servers = [line for line in await printed(bed, "many", "cat", "/etc/resolv.conf") if line.startswith("nameserver")]
    assert servers == ["nameserver 10.96.0.10", "nameserver 192.0.2.1", "nameserver 192.0.2.2"]
    await bed.until_event("many", "DNSConfigForming", "Nameserver limits were exceeded")


async def test_services_that_exist_leave_their_variables(bed: NodeBed) -> None:
    """Also one made right before the pod; one made after it doesn't, and no other namespace's but the API's."""
    await bed.session.create(registry.NAMESPACE, {"metadata": {"name": "other"}})
    ports = [{"name": "pg", "port": 5432, "targetPort": 5432}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    await run(bed, "first")  # asks for Services just before the next one is made
    for namespace, name, address in (("default", "my-db", "10.96.0.77"), ("other", "far", "10.96.0.78")):
        spec = {"clusterIP": address, "ports": ports}
        await bed.session.create(registry.SERVICE, {"metadata": {"name": name, "namespace": namespace}, "spec": spec})
    await run(bed, "linked")
    await run(bed, "plain", enableServiceLinks=False)
    late = {"clusterIP": "10.96.0.79", "ports": ports}
    await bed.session.create(registry.SERVICE, {"metadata": {"name": "late", "namespace": "default"}, "spec": late})

    def about(lines: list[str], service: str) -> dict[str, str]:
        return dict(line.split("=", 1) for line in lines if line.startswith(f"{service}_"))

    linked = await printed(bed, "linked", "env")
    assert about(linked, "MY_DB") == {
        "MY_DB_SERVICE_HOST": "10.96.0.77",
        "MY_DB_SERVICE_PORT": "5432",
        "MY_DB_SERVICE_PORT_PG": "5432",
        "MY_DB_SERVICE_PORT_DNS": "53",
        "MY_DB_PORT": "tcp://10.96.0.77:5432",
        "MY_DB_PORT_5432_TCP": "tcp://10.96.0.77:5432",
        "MY_DB_PORT_5432_TCP_PROTO": "tcp",
        "MY_DB_PORT_5432_TCP_PORT": "5432",
        "MY_DB_PORT_5432_TCP_ADDR": "10.96.0.77",
        "MY_DB_PORT_53_UDP": "udp://10.96.0.77:53",
        "MY_DB_PORT_53_UDP_PROTO": "udp",
        "MY_DB_PORT_53_UDP_PORT": "53",
        "MY_DB_PORT_53_UDP_ADDR": "10.96.0.77",
    }
    assert not about(linked, "LATE")
    assert not about(linked, "FAR")
    assert not about(await printed(bed, "first", "env"), "MY_DB")
    plain = await printed(bed, "plain", "env")
    assert not about(plain, "MY_DB")
    for lines in (linked, plain):
        assert about(lines, "KUBERNETES")["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"


async def test_host_name_and_hosts(bed: NodeBed) -> None:
    aliases = [{"ip": "10.1.1.1", "hostnames": ["a.example", "b.example"]}]
    await bed.create("plain", FOREVER, hostAliases=aliases)
    await bed.create("named", FOREVER, hostname="db", subdomain="data")
    await bed.create("whole", FOREVER, hostname="db", subdomain="data", setHostnameAsFQDN=True)
    await bed.create("on-host", FOREVER, hostNetwork=True, hostAliases=aliases)
    whole = "db.data.default.svc.cluster.local"
    expected = {
        "plain": ("plain", ["plain"]),
        "named": ("db", [whole, "db"]),
        "whole": (whole, [whole, "db"]),
    }
    for name, (hostname, names) in expected.items():
        pod = await bed.running(name)
        shown = await printed(bed, name, "sh", "-c", "hostname; cat /etc/hostname; echo $HOSTNAME")
        assert shown == [hostname] * 3
        lines = await printed(bed, name, "cat", "/etc/hosts")
        assert "\t".join([pod.status.pod_ip, *names]) in lines
        assert ("10.1.1.1\ta.example\tb.example" in lines) == (name == "plain")
    assert await printed(bed, "named", "hostname", "-f") == [whole]
    await bed.running("on-host")
    assert await printed(bed, "on-host", "hostname") == ["node1"]
    assert await printed(bed, "on-host", "cat", "/etc/hosts") == [
        "# Kubernetes-managed hosts file (host network).",
        "127.0.0.1 localhost",
        "192.0.2.9 printer",
        "",
        "# Entries added by HostAliases.",
        "10.1.1.1\ta.example\tb.example",
    ]


async def test_a_host_name_that_does_not_fit_is_said(bed: NodeBed) -> None:
    await bed.create("long", FOREVER, subdomain="d" * 50, setHostnameAsFQDN=True)
    await bed.until_event("long", "FailedCreatePodSandBox", "Failed to construct FQDN from Pod hostname")

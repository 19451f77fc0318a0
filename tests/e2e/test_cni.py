"""Pods' networks by Debian's CNI plugins: Services, host ports and names work as over our own; nothing is left."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from support.box import BoxUnderTest, eventually, fresh_box
from support.dualstack import apply, ask, ask_from_host, node_ips, pod, pod_ips, service

ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
RANGES = {"ipRanges": True}


def ipam(store: Path) -> dict:
    return {"type": "host-local", "dataDir": str(store), "routes": ROUTES}


def bridge(store: Path) -> list[dict]:
    ours = {"bridge": "cni0", "isGateway": True, "hairpinMode": True}
    return [{"type": "bridge", "capabilities": RANGES, "ipam": ipam(store)} | ours]


def ptp(store: Path) -> list[dict]:
    """With host ports by iptables, instead of our table."""
    ports = {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}
    return [{"type": "ptp", "capabilities": RANGES, "ipam": ipam(store)}, ports]


def configure(directory: Path, plugins: list[dict]) -> Path:
    """As in /etc/cni/net.d: the first file counts."""
    place = directory / "net.d"
    place.mkdir()
    tree = {"cniVersion": "1.0.0", "name": "tested", "plugins": plugins}
    (place / "10-tested.conflist").write_text(json.dumps(tree))
    (place / "99-other.conflist").write_text("{")
    return place


def reserved(store: Path) -> set[str]:
    """The addresses that host-local has given away."""
    return {path.name for path in (store / "tested").glob("*") if path.name[0].isdigit() or ":" in path.name}


@pytest.mark.parametrize("made", [bridge, ptp], ids=["bridge", "ptp"])
def test_pods_get_their_network_from_plugins(tmp_path: Path, made) -> None:
    """Addresses of the node's ranges; Services between nodes, on one node, and to itself; a host port; after the death
    of every process pods go on, and those deleted meanwhile give their addresses back; `down` gives back the rest."""
    store = tmp_path / "reserved"
    place = configure(tmp_path, made(store))
    with fresh_box(tmp_path / "box") as box:
        box.up("--nodes", "2", "--ip-family", "dual", "--cni", str(place), "--cni-bin", "/opt/cni/bin:/usr/lib/cni")
        exposed = pod("echo1", "node1", app="echo")
        exposed["spec"]["containers"][0]["ports"] = [{"containerPort": 8080, "hostPort": 8888}]
        said = apply(
            box,
            exposed,
            pod("echo2", "node2", app="echo"),
            pod("client", "node2"),
            service("cluster", type="NodePort", ipFamilyPolicy="RequireDualStack"),
        )
        assert said.count("created") == 4, said
        box.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        names = {"echo1": "node1", "echo2": "node2", "client": "node2"}
        given = {name: pod_ips(box, name) for name in names}
        for name, node in names.items():
            cidrs = box.get("node", node)["spec"]["podCIDRs"]
            assert [ip_address(ip) in ip_network(cidr) for ip, cidr in zip(given[name], cidrs, strict=True)] == [
                True,
                True,
            ]
        assert reserved(store) == {ip for ips in given.values() for ip in ips}
        flows(box)
        for address in node_ips(box, "node1"):
            assert ask_from_host(address, 8888)[0] == "echo1"
        assert ("kubesvc-hostports" in box.inside("node1", "nft", "list", "tables")) == (made is bridge)

        box.kill()
        refused = box.kubesvc("up", "--cni", "", check=False)
        assert "pods of before have another network" in refused.stderr
        box.up()
        assert {name: pod_ips(box, name) for name in names} == given
        flows(box)
        box.kubectl("delete", "pod", "client")
        eventually(lambda: not reserved(store) & set(given["client"]), what="the client's addresses are free")
        box.interrupt()
        assert not reserved(store)


def flows(box: BoxUnderTest) -> None:
    """Both pods answer a third one, on the second's node, and the second."""
    for address in box.get("service", "cluster")["spec"]["clusterIPs"]:
        for source, kind in (("client", "tcp"), ("echo2", "udp")):

            def both(source: str = source, kind: str = kind, address: str = address) -> bool:
                return {name for name, _, _ in ask(box, source, kind, address, count=30)} == {"echo1", "echo2"}

            eventually(both, what=f"{kind} from {source} to {address}")


def test_an_attachment_that_was_begun_is_undone(tmp_path: Path) -> None:
    """A plugin that fails after another has given an address: the pod says why, and the address isn't lost."""
    store, broken = tmp_path / "reserved", tmp_path / "bin" / "broken"
    broken.parent.mkdir()
    broken.write_text(
        '#!/bin/sh\ncat >/dev/null\n[ "$CNI_COMMAND" = DEL ] && exit 0\n'
        """echo '{"code": 100, "msg": "no luck", "details": "none at all"}'\nexit 1\n"""
    )
    broken.chmod(0o755)
    place = configure(tmp_path, [*bridge(store), {"type": "broken"}])
    with fresh_box(tmp_path / "box") as box:
        missing = box.kubesvc("up", "--cni", str(place), check=False)
        assert "CNI plugin 'broken' is not in /opt/cni/bin or /usr/lib/cni" in missing.stderr
        box.up("--cni", str(place), "--cni-bin", f"{broken.parent}:/usr/lib/cni")
        assert "created" in apply(box, pod("web", "node1"))
        eventually(lambda: "no luck: none at all" in box.kubectl("describe", "pod", "web"), what="the event")
        eventually(lambda: not reserved(store), what="no address is held between two attempts")
        repaired = broken.with_suffix(".new")
        repaired.write_text(
            '#!/bin/sh\nif [ "$CNI_COMMAND" = ADD ]; then python3 -c \''
            'import json,sys; print(json.dumps(json.load(sys.stdin)["prevResult"]))\'; fi\n'
        )
        repaired.chmod(0o755)
        repaired.replace(broken)
        box.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
        assert set(pod_ips(box, "web")) == reserved(store)

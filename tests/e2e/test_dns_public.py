"""A public name from a Service's annotation to the world: a real box, and NSD as the zone's public server."""

from __future__ import annotations

import json
import subprocess

from support.box import answers, eventually, fresh_box
from support.nsd import nsd
from support.ports import free_port

SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "shop", "annotations": {"kubesvc.dev/hostname": "www.shop.example,shop.example.org"}},
    "spec": {"type": "LoadBalancer", "ports": [{"name": "http", "port": 80}]},
}


def dig(server: str, port: int, name: str) -> str:
    command = ["dig", "+short", "+time=1", "+tries=1", f"@{server}", "-p", str(port), name]
    return answers(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)


def test_a_public_server_follows_the_box(tmp_path):
    """The name is served by the node, by the secondary a moment later, and told in `kubesvc status`."""
    port = free_port()
    private = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"
    with fresh_box(tmp_path / "box") as box:
        box.up("--public-zone", "shop.example", "--transfer-to", private, "--notify", f"127.0.0.1:{port}")
        node = box.get("node", "node1")["status"]["addresses"][0]["address"]
        (tmp_path / "nsd").mkdir()
        with nsd(tmp_path / "nsd", ["shop.example"], node, 10053, port=port):
            soa = ["dig", "+short", "+time=1", "+tries=1", "@127.0.0.1", "-p", str(port), "shop.example", "SOA"]
            eventually(lambda: subprocess.run(soa, capture_output=True, check=False).stdout.startswith(b"ns.dns"))
            box.kubectl("apply", "-f", "-", input=json.dumps(SERVICE))
            box.kubectl("wait", "--for=jsonpath={.status.loadBalancer.ingress}", "service/shop", "--timeout=60s")
            address = box.get("service", "shop")["status"]["loadBalancer"]["ingress"][0]["ip"]
            assert eventually(lambda: dig(node, 10053, "www.shop.example")) == address
            # Within a minute, and its SOA says two hours: it was told.
            assert eventually(lambda: dig("127.0.0.1", port, "www.shop.example")) == address
            shown = box.kubesvc("status").stdout
            assert f"shop.example.org. 300 IN A {address}  ; default/shop" in shown
            assert f"www.shop.example. 300 IN A {address}  ; default/shop" in shown
            box.kubectl("delete", "service", "shop")
            eventually(lambda: not dig("127.0.0.1", port, "www.shop.example"), what="gone from the secondary")

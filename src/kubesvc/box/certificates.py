"""Who is who in a box: which certificate and kubeconfig each process gets."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path

import msgspec

from kubesvc.box.definition import API_PORT, Box
from kubesvc.box.pki import Authority, Host
from kubesvc.kernel import turns
from kubesvc.loadbalancer.providers.desk.model import DOMAIN as CLOUD_DOMAIN


class NodeIdentities(msgspec.Struct, frozen=True):
    """What a node's processes present: a kubeconfig each, and the certificate the node's agent serves with."""

    proxy: Path
    dns: Path
    node: Path
    serving: Path


class Identities(msgspec.Struct, frozen=True):
    """Paths of PEM certificates (the key is beside each, .key) and kubeconfigs; `signing` is the key of tokens."""

    authority: Path
    ca_pem: str
    serving: Path
    node_client: Path
    signing: Path
    nodes: dict[str, NodeIdentities]


def ensure_certificates(box: Box) -> Identities:
    """Make or renew every certificate of the box, and write the kubeconfigs."""
    pki = box.path / "pki"
    pki.mkdir(parents=True, exist_ok=True, mode=0o700)
    with turns.alone(pki):  # the supervisor adds nodes while the control plane renews
        return _ensure(box)


def _ensure(box: Box) -> Identities:
    authority = Authority(box.path / "pki", timedelta(seconds=box.certificate_lifetime))
    api = box.network.api
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    hosts: list[Host] = [
        *names,
        *(f"kubernetes.default.svc.{domain}" for domain in box.dns.dns_domain),
        IPv4Address("127.0.0.1"),
        *(network.api for network in box.networks),
        *(network[1] for network in box.services),
    ]
    serving = authority.ensure("apiserver", "kube-apiserver", hosts=hosts)
    node_client = authority.ensure("apiserver-node-client", "kube-apiserver-kubelet-client", ["system:masters"])
    if box.cloud:  # what its TLS listeners show
        authority.ensure("cloud", "kubesvc:cloud", hosts=[f"*.elb.us-east-1.{CLOUD_DOMAIN}"])
    admin = authority.ensure("admin", "kubernetes-admin", ["system:masters"])
    context = "kubesvc" if box.name == "default" else f"kubesvc-{box.name}"
    authority.kubeconfig(box.kubeconfig, admin, f"https://127.0.0.1:{box.api_port}", context, f"{context}-admin")
    inside = f"https://[{api}]:{API_PORT}" if api.version == 6 else f"https://{api}:{API_PORT}"

    def kubeconfig(node: str, part: str, user: str, groups: list[str]) -> Path:
        own = part == "node"  # its agent renews it
        certificate = (authority.ensure_own if own else authority.ensure)(f"{node}-{part}", user, groups)
        return authority.kubeconfig(box.path / "pki" / f"{node}-{part}.kubeconfig", certificate, inside, context, user)

    nodes = {
        node: NodeIdentities(
            proxy=kubeconfig(node, "proxy", "system:kube-proxy", ["system:node-proxier"]),
            dns=kubeconfig(node, "dns", "system:kubesvc:dns", []),
            node=kubeconfig(node, "node", f"system:node:{node}", ["system:nodes"]),
            serving=authority.ensure(f"{node}-serving", f"system:node:{node}", ["system:nodes"], box.node_ips(node)),
        )
        for node in box.node_names
    }
    return Identities(
        authority.certificate_path, authority.pem, serving, node_client, authority.signing_key("sa"), nodes
    )

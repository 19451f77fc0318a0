"""`kubesvc up --cloud aws`: a Network Load Balancer's manners, with traffic."""

from __future__ import annotations

import re
import ssl

import pytest

from support.box import answers, eventually
from support.cloud import Cloud, cloud

PREFIX = "service.beta.kubernetes.io/aws-load-balancer-"
PUBLIC = {PREFIX + "scheme": "internet-facing"}


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    with cloud("aws", tmp_path_factory.mktemp("aws") / "box") as made:
        yield made


def test_the_status_is_a_host_name_that_resolves_everywhere(aws: Cloud) -> None:
    """In pods, from this machine at the cloud's name server; `kubesvc status` says which record to make."""
    aws.service("named", PUBLIC)
    ingress = aws.ingress("named")
    assert set(ingress) == {"hostname"}
    assert re.fullmatch(
        r"k8s-default-named-[0-9a-f]{10}-[0-9a-f]{16}\.elb\.us-east-1\.desk\.kubesvc", ingress["hostname"]
    )
    address = aws.address("named")
    inside = aws.box.kubectl("exec", "client", "--", "dig", "+short", ingress["hostname"])
    assert answers(inside) == address
    assert aws.resolve("nobody.elb.us-east-1.desk.kubesvc") == ""
    shown = aws.box.kubesvc("status").stdout
    assert f"CNAME {ingress['hostname']}." in shown
    assert f"dig +short @{aws.own_address}" in shown
    eventually(lambda: aws.machine_asks(address)[0].startswith("echo"), 60, "this machine is served")


def test_policy_cluster_hides_the_client_and_local_shows_it(aws: Cloud) -> None:
    """Instance targets: the balancer keeps the source; what policy Cluster does to it on the node is the node's."""
    aws.service("hidden", PUBLIC)
    aws.service("shown", PUBLIC, externalTrafficPolicy="Local")
    hidden, shown = aws.address("hidden"), aws.address("shown")
    assert eventually(lambda: aws.asks(hidden)[1]) in aws.nodes.values()
    assert eventually(lambda: aws.asks(shown)[1]) == aws.client_address
    assert eventually(lambda: aws.machine_asks(shown)[1]) == aws.host_address


def test_the_default_scheme_is_internal(aws: Cloud) -> None:
    """This machine plays the internet: it is not answered, hosts of the cloud's network are; a change makes it so."""
    aws.service("inner")
    assert aws.ingress("inner")["hostname"].startswith("internal-k8s-")
    address = aws.address("inner")
    eventually(lambda: aws.asks(address), 60, "served inside")
    assert aws.silent(address, machine=True)
    aws.service("inner", PUBLIC)
    eventually(lambda: aws.machine_asks(address), 60, "served outside")
    eventually(lambda: aws.ingress("inner")["hostname"].startswith("k8s-"), 60, "named anew")


def test_proxy_protocol_carries_the_client_and_pods_go_through_the_balancer(aws: Cloud) -> None:
    """A connection of the balancer's own, its first bytes a header of version 2; clients in the cluster get it, too."""
    aws.service("header", PUBLIC | {PREFIX + "proxy-protocol": "*"}, externalTrafficPolicy="Local")
    address, hostname = aws.address("header"), aws.ingress("header")["hostname"]
    _, seen, header, _ = eventually(lambda: aws.asks(address), 60, "served")  # type: ignore[misc]
    assert seen == aws.own_address
    assert re.fullmatch(rf"{re.escape(aws.client_address)}:\d+>{re.escape(address)}:80", header)
    pod_address = aws.box.get("pod", "client")["status"]["podIP"]
    _, _, header, _ = aws.from_pod("client", hostname)
    assert re.fullmatch(rf"{re.escape(pod_address)}:\d+>{re.escape(address)}:80", header)
    aws.service("header", PUBLIC, externalTrafficPolicy="Local")
    eventually(lambda: aws.asks(address)[1:3] == [aws.client_address, "-"], 60, "no header any more")


def test_the_balancer_ends_tls(aws: Cloud) -> None:
    """With a certificate for its host name, of the box's authority; the pod speaks plain TCP, and sees the header."""
    wishes = {PREFIX + "ssl-cert": "arn:aws:acm:us-east-1:1:certificate/x", PREFIX + "ssl-ports": "443"}
    ports = [
        {"name": "tls", "port": 443, "targetPort": 8080, "protocol": "TCP"},
        {"name": "tcp", "port": 80, "targetPort": 8080, "protocol": "TCP"},
    ]
    aws.service("secret", PUBLIC | wishes | {PREFIX + "proxy-protocol": "*"}, ports=ports)
    address, hostname = aws.address("secret"), aws.ingress("secret")["hostname"]
    context = ssl.create_default_context(cafile=str(aws.box.directory / "pki" / "ca.crt"))

    def said() -> list[str]:
        with aws.client.socket() as end:
            end.settimeout(5)
            end.connect((address, 443))
            with context.wrap_socket(end, server_hostname=hostname) as secured:
                secured.sendall(b"?")
                return secured.recv(512).decode().split()

    _, _, header, _ = eventually(said, 60, "served over TLS")  # type: ignore[misc]
    assert re.fullmatch(rf"{re.escape(aws.client_address)}:\d+>{re.escape(address)}:443", header)
    assert str(eventually(lambda: aws.asks(address, 80)[2])).endswith(">" + address + ":80")


def test_only_nodes_with_endpoints_are_used_under_policy_local(aws: Cloud) -> None:
    """The health check of policy Local; what it finds follows the pods."""
    aws.pods("only", "node1")
    aws.service("local", PUBLIC, selector={"app": "only"}, externalTrafficPolicy="Local")
    address = aws.address("local")
    eventually(lambda: targets(aws, address) == {"node1"}, 60, "node2 is out")
    assert {aws.asks(address)[0] for _ in range(20)} == {"only-node1"}
    aws.pods("only", "node1", "node2")
    eventually(lambda: {aws.asks(address)[0] for _ in range(20)} == {"only-node1", "only-node2"}, 60, "both")


def targets(aws: Cloud, address: str) -> set[str]:
    """The nodes that get what comes to a balancer's address."""
    chain = "\n".join(line for line in aws.rules().splitlines() if address in line)
    return {node for node, ip in aws.nodes.items() if f"dnat ip to {ip}:" in chain}


def test_udp_is_balanced_too(aws: Cloud) -> None:
    """The source stays, for UDP in any case."""
    ports = [{"name": "u", "port": 53, "targetPort": 8080, "protocol": "UDP"}]
    aws.service("udp", PUBLIC, ports=ports, externalTrafficPolicy="Local")
    address = aws.address("udp")
    assert eventually(lambda: aws.udp(address, 53)[1]) == aws.client_address


def test_source_ranges_are_obeyed_and_followed(aws: Cloud) -> None:
    """By the balancer: nodes only guard addresses, and this one's is a name."""
    aws.service("guarded", PUBLIC, loadBalancerSourceRanges=[f"{aws.client_address}/32"])
    address = aws.address("guarded")
    eventually(lambda: aws.asks(address), 60, "the client may")
    assert aws.silent(address, machine=True)
    aws.service("guarded", PUBLIC, loadBalancerSourceRanges=[f"{aws.host_address}/32"])
    eventually(lambda: aws.machine_asks(address), 60, "this machine may")
    assert aws.silent(address)


def test_ports_change_in_place(aws: Cloud) -> None:
    """The host name stays, the old port goes silent."""
    aws.service("moved", PUBLIC)
    address, hostname = aws.address("moved"), aws.ingress("moved")["hostname"]
    eventually(lambda: aws.asks(address), 60, "served")
    ports = [{"name": "tcp", "port": 8000, "targetPort": 8080, "protocol": "TCP"}]
    aws.service("moved", PUBLIC, ports=ports)
    eventually(lambda: aws.asks(address, 8000), 60, "served at the new port")
    assert aws.silent(address)
    assert aws.ingress("moved")["hostname"] == hostname


def test_without_endpoints_a_connection_is_refused(aws: Cloud) -> None:
    """No target is healthy, so all are tried; the node says no."""
    aws.service("empty", PUBLIC, selector={"app": "nobody"})
    address = aws.address("empty")
    eventually(lambda: is_refused(aws, address), 60, "refused")


def is_refused(aws: Cloud, address: str) -> bool:
    try:
        aws.asks(address)
    except ConnectionRefusedError:
        return True
    return False


def test_annotations_of_nobody_and_bad_values_are_told(aws: Cloud) -> None:
    """An event for what is passed over; a condition for what can't be."""
    azure = "service.beta.kubernetes.io/azure-load-balancer-internal"
    aws.service("odd", PUBLIC | {PREFIX + "shceme": "internal", azure: "true"})
    eventually(lambda: "AnnotationIgnored" in aws.reasons("odd"), 60, "it is told")
    messages = aws.box.kubectl("describe", "service", "odd")
    assert f"{PREFIX}shceme isn't an annotation that aws knows" in messages
    assert f"{azure} is for azure, and this is aws" in messages
    aws.service("bad", {PREFIX + "scheme": "public"})
    said = eventually(lambda: aws.reasons("bad").get("SyncLoadBalancerFailed"), 60, "refused")
    assert "scheme: 'public' isn't one of internal, internet-facing" in str(said)


def test_deleting_leaves_nothing(aws: Cloud) -> None:
    """No address, no rule, nothing remembered; the name is gone."""
    aws.service("gone", PUBLIC | {PREFIX + "proxy-protocol": "*"})
    address, hostname = aws.address("gone"), aws.ingress("gone")["hostname"]
    eventually(lambda: aws.asks(address), 60, "served")
    aws.box.kubectl("delete", "service", "gone", "--timeout=60s")
    eventually(lambda: f"{address}/32" not in aws.box.inside("cloud", "ip", "addr"), 60, "the address is gone")
    eventually(lambda: address not in aws.rules(), 60, "no rule is left")
    assert hostname not in {found["hostname"] for found in aws.ledger()}
    assert aws.resolve(hostname) == ""

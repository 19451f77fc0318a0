"""What a box may be, and how its options are remembered."""

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from kubesvc.box import definition
from kubesvc.box.addons import kube_dns
from kubesvc.box.definition import Options, define, networks_of_others, recall
from kubesvc.box.errors import BoxError
from kubesvc.box.ranges import choose_network, default_pool, parse_pool

HERE = Path("/nowhere")


def box(**options):
    return define("t", HERE, Options(node_cidr="172.29.7.0/24", **options), None)


def test_a_box_has_the_addresses_its_picture_shows():
    """A /24 gives .1 to the API, .2 and on to nodes, .200-.249 to the pool, .254 to the host."""
    network = box(nodes=3).network
    assert network.api == IPv4Address("172.29.7.1")
    assert [str(network.node(n)) for n in (1, 2, 3)] == ["172.29.7.2", "172.29.7.3", "172.29.7.4"]
    assert network.pool == (IPv4Address("172.29.7.200"), IPv4Address("172.29.7.249"))
    assert network.host == IPv4Address("172.29.7.254")


def test_well_known_cluster_ips_follow_the_service_range():
    """default/kubernetes takes the first address, kube-dns the tenth."""
    made = box(service_cidr="10.50.0.0/20")
    assert (str(made.kubernetes_ip), str(made.dns_ip)) == ("10.50.0.1", "10.50.0.10")


def test_cluster_info_names_our_own_dns():
    """kubectl prints the label of every Service that says it is the cluster's."""
    labels = kube_dns(box())["metadata"]["labels"]
    assert labels["kubernetes.io/cluster-service"] == "true"
    assert labels["kubernetes.io/name"] == "kubesvc-dns"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": 0}, "--nodes 0: expected 1 to 100"),
        ({"service_cidr": "10.96.0.0/40"}, "--service-cidr '10.96.0.0/40'"),
        ({"service_cidr": "10.96.0.0/30"}, "too small"),
        ({"service_cidr": "10.244.0.0/24"}, "--service-cidr 10.244.0.0/24 overlaps --pod-cidr 10.244.0.0/16"),
        ({"pod_cidr": "172.29.0.0/16"}, "overlaps --node-cidr"),
        ({"pod_cidr": "10.244.0.0/24", "nodes": 2}, "fewer /24 networks than --nodes 2"),
        ({"node_port_range": "9-1"}, "--node-port-range '9-1': expected FIRST-LAST"),
        ({"node_port_range": "all"}, "--node-port-range 'all'"),
        ({"publish": ("web",)}, "--publish 'web': expected PORT or HOSTPORT:NODEPORT"),
        ({"publish": ("8080:0",)}, "--publish '8080:0'"),
        ({"publish": ("8080:30080/sctp",)}, "--publish '8080:30080/sctp'"),
        ({"publish": ("8080:30080", "8080:30081/tcp")}, "--publish 8080:30080 has port 8080 already"),
        ({"node_port_addresses": "here"}, "or primary, all, localhost"),
        ({"dns_domain": "No Zone"}, "--dns-domain 'No Zone'"),
        ({"forward": ("dns.example",)}, "--forward 'dns.example'"),
        ({"zone": ("corp.example",)}, "--zone 'corp.example': expected NAME=ADDRESS"),
        ({"zone": ("corp.example=x",)}, "--zone 'x'"),
        ({"zone": ("corp.cluster.local=10.0.0.53",)}, "the cluster's own zone"),
        ({"lb_pool": "10.0.0.1-10.0.0.9"}, "inside the node network 172.29.7.0/24"),
        ({"lb_pool": "172.29.7.0/24"}, "holds an address the box itself uses"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_bad_option_is_named_with_its_remedy(options, message):
    """Every refusal names the flag, the value and what was expected."""
    with pytest.raises(BoxError) as refusal:
        box(**options)
    assert message in str(refusal.value)


def test_options_left_out_are_those_the_box_was_made_with():
    """`up` after `up --nodes 3` starts three again."""
    made = box(nodes=3)
    assert define("t", HERE, Options(), made).nodes == 3
    assert define("t", HERE, Options(nodes=5), made).nodes == 5


@pytest.mark.parametrize(
    ("text", "ports", "shown"),
    [
        ("30080", (30080, 30080, "tcp"), "30080"),
        ("8080:30080", (8080, 30080, "tcp"), "8080:30080"),
        ("5353:30053/udp", (5353, 30053, "udp"), "5353:30053/udp"),
        ("30053/udp", (30053, 30053, "udp"), "30053/udp"),
    ],
)
def test_a_publication_is_written_as_it_is_read(text, ports, shown):
    """The host's port first; one number stands for both."""
    (found,) = box(publish=(text,)).publications
    assert (found.host_port, found.node_port, found.protocol) == ports
    assert str(found) == shown


def test_what_may_change_does():
    """Ports published, and the range of node ports; '' publishes none."""
    made = box(publish=("30080",), node_port_range="30000-30099")
    assert define("t", HERE, Options(), made).publish == ("30080",)
    assert define("t", HERE, Options(publish=("",)), made).publish == ()
    assert define("t", HERE, Options(node_port_range="31000-31099"), made).port_range == (31000, 31099)


def test_what_objects_depend_on_cannot_change():
    """Another Service range would leave every cluster IP outside of it."""
    with pytest.raises(BoxError, match="was made with --service-cidr 10.96.0.0/16"):
        define("t", HERE, Options(service_cidr="10.97.0.0/16"), box())


def test_names_that_a_namespace_cannot_have_are_refused():
    """A box's name becomes part of what `ip netns` lists."""
    for name in ("", "A", "a_b", "-a", "x" * 40):
        with pytest.raises(BoxError, match="--name"):
            define(name, HERE, Options(), None)


def test_the_node_network_avoids_what_the_machine_uses():
    """The first candidate that overlaps no route; a default route doesn't count."""
    taken = [IPv4Network("0.0.0.0/0"), IPv4Network("172.29.0.0/23")]
    assert choose_network([]) == IPv4Network("172.29.0.0/24")
    assert choose_network(taken) == IPv4Network("172.29.2.0/24")
    with pytest.raises(BoxError, match="give one with --node-cidr"):
        choose_network([IPv4Network("172.16.0.0/12"), IPv4Network("10.0.0.0/8")])


def test_a_pool_is_a_range_or_a_network():
    """Both ways of writing it."""
    network = IPv4Network("172.29.7.0/24")
    assert parse_pool("172.29.7.100-172.29.7.110", network)[1] == IPv4Address("172.29.7.110")
    assert parse_pool("172.29.7.128/28", network)[0] == IPv4Address("172.29.7.128")
    assert default_pool(IPv4Network("10.0.0.0/22"))[0] in IPv4Network("10.0.0.0/22")


def test_a_torn_box_file_is_named(tmp_path):
    """A box.json that can't be read is an error with a remedy, not a fresh box."""
    (tmp_path / "box.json").write_text("{")
    with pytest.raises(BoxError, match=r"box.json can't be read"):
        recall(tmp_path)


def test_dns_upstreams_are_remembered_until_others_are_named():
    """Given once they stay; an empty one goes back to the machine's own, to no zone at all."""
    options = Options(
        forward=("192.0.2.53", "tls://192.0.2.54#dns.example"), zone=("corp.example=10.0.0.53,10.0.0.54",)
    )
    made = define("shop", Path("/x"), options, None)
    assert made.dns.zone == ("corp.example=10.0.0.53,10.0.0.54",)
    again = define("shop", Path("/x"), Options(), made)
    assert (again.forward, again.zone) == (made.forward, made.zone)
    bare = define("shop", Path("/x"), Options(forward=("",), zone=("",)), again)
    assert (bare.forward, bare.zone) == ((), ())


def test_dns_settings_are_kept_and_changed():
    """The first zone belongs to the objects; the others, and the rest, are whatever was said last."""
    options = Options(dns_domain="cluster.local", more_dns_domains=("corp.internal",), public_zone=("shop.example",))
    made = define("shop", Path("/x"), options, None)
    assert made.dns.dns_domain == ("cluster.local", "corp.internal")
    again = define("shop", Path("/x"), Options(notify=("192.0.2.53",)), made)
    assert (again.dns.dns_domain, again.dns.public_zone) == (made.dns.dns_domain, ("shop.example",))
    assert again.dns.notify == ("192.0.2.53",)
    alone = define(
        "shop", Path("/x"), Options(dns_domain="cluster.local", more_dns_domains=(), public_zone=("",)), again
    )
    assert (alone.dns.dns_domain, alone.dns.public_zone) == (("cluster.local",), ())
    with pytest.raises(BoxError, match="was made with --dns-domain cluster.local"):
        define("shop", Path("/x"), Options(dns_domain="corp.internal", more_dns_domains=()), made)


def fresh(**options):
    """A box just made, of nothing but these options."""
    return define("t", HERE, Options(**options), None)


@pytest.mark.parametrize(
    ("said", "services", "pods"),
    [
        pytest.param({}, "10.96.0.0/16", "10.244.0.0/16", id="nothing said"),
        pytest.param({"ip_family": "ipv6"}, "fd00:10:96::/112", "fd00:10:244::/56", id="ipv6"),
        pytest.param(
            {"ip_family": "dual"}, "10.96.0.0/16,fd00:10:96::/112", "10.244.0.0/16,fd00:10:244::/56", id="both"
        ),
        pytest.param(
            {"service_cidr": "fd01::/112, 10.1.0.0/16"},
            "fd01::/112, 10.1.0.0/16",
            "fd00:10:244::/56,10.244.0.0/16",
            id="the order of one holds for the others",
        ),
        pytest.param(
            {"ip_family": "dual", "pod_cidr": "fd02::/48,10.2.0.0/16"},
            "fd00:10:96::/112,10.96.0.0/16",
            "fd02::/48,10.2.0.0/16",
            id="of pods alone, too",
        ),
    ],
)
def test_the_families_of_a_box_are_those_of_its_networks(said, services, pods):
    """What is left out is of the families of what is said."""
    made = fresh(**said)
    assert (made.service_cidr, made.pod_cidr) == (services, pods)
    assert [n.version for n in made.services] == [n.version for n in made.pods] == list(made.versions)


@pytest.mark.parametrize(
    ("said", "refusal"),
    [
        (
            {"ip_family": "dual", "pod_cidr": "10.2.0.0/16"},
            "--pod-cidr '10.2.0.0/16': expected one network of IPv4 and",
        ),
        ({"service_cidr": "10.0.0.0/16,10.1.0.0/16"}, "one of IPv4 and one of IPv6"),
        ({"service_cidr": "fd00::/32"}, "too large: expected a prefix of /64 or longer"),
        ({"service_cidr": "fd00::/126"}, "too small"),
        ({"ip_family": "ipv6", "pod_cidr": "fd00::/64", "nodes": 2}, "holds fewer /64 networks than --nodes 2"),
        ({"ip_family": "ipv4", "service_cidr": "fd00::/112"}, "--service-cidr 'fd00::/112'|not what --ip-family"),
        ({"service_cidr": "fd00::/112,10.0.0.0/16", "pod_cidr": "10.2.0.0/16,fd01::/56"}, "IPv6 and then IPv4"),
        ({"ip_family": "ipv6", "pod_cidr": "fd00:10:96::/56"}, "overlaps"),
        ({"mtu": 500}, "--mtu 500: expected 576 to 65535"),
        ({"ip_family": "ipv6", "mtu": 1279}, "expected 1280 to 65535"),
        ({"node_cidr": "fd09::/64", "lb_pool": "172.29.0.200-172.29.0.210"}, "no node network of IPv4"),
        ({"node_cidr": "fd09::/64", "lb_pool": "fd09::f0-fd09::ff"}, "an address the box itself uses"),
        ({"node_cidr": "fd09::/64", "lb_pool": "fd09::d0-fd09::d1,fd09::e0-fd09::e1"}, "one range of a family"),
    ],
)
def test_networks_that_do_not_fit_each_other_are_refused(said, refusal):
    """With the flag, the value, and what was expected."""
    with pytest.raises(BoxError, match=refusal):
        fresh(**said)


def test_a_box_of_both_families_has_one_address_of_each_for_everything():
    """With the same last number; a pool for each network, also where one alone is said."""
    made = fresh(ip_family="dual", node_cidr="172.29.7.0/24,fd09::/64", lb_pool="fd09::d0-fd09::df")
    assert list(map(str, made.node_ips("node2"))) == ["172.29.7.3", "fd09::3"]
    assert [f"{n.api} {n.host} {n.pool[0]}-{n.pool[1]}" for n in made.networks] == [
        "172.29.7.1 172.29.7.254 172.29.7.200-172.29.7.249",
        "fd09::1 fd09::fe fd09::d0-fd09::df",
    ]
    assert (str(made.kubernetes_ip), str(made.dns_ip)) == ("10.96.0.1", "10.96.0.10")


def test_the_family_of_a_box_cannot_change():
    with pytest.raises(BoxError, match="was made with --ip-family ipv4"):
        define("t", HERE, Options(ip_family="dual"), box())


def test_a_cloud_has_an_address_a_zone_and_limits(tmp_path: Path) -> None:
    """No node is ever given the cloud's address; each node's DNS asks it for the balancers' names."""
    box = define("shop", tmp_path, Options(node_cidr="172.29.7.0/24", cloud="aws", cloud_speed=20.0), None)
    assert str(box.network.cloud) == "172.29.7.253"
    assert box.dns.zone == ("desk.kubesvc=172.29.7.253",)
    with pytest.raises(BoxError, match="no address for node 252"):
        box.network.node(252)
    for options, words in (
        (Options(cloud="ibm"), "expected one of aws, gcp, azure"),
        (Options(cloud_speed=0.5), "1 to 1000"),
        (Options(cloud="aws", ip_family="dual"), "expected ipv4"),
    ):
        with pytest.raises(BoxError, match=words):
            define("shop", tmp_path, options, None)
    with pytest.raises(BoxError, match="was made with --cloud aws, not gcp"):
        define("shop", tmp_path, Options(cloud="gcp"), box)


def test_a_neighbour_that_cannot_be_read_is_passed_over(tmp_path, monkeypatch):
    """A box of another version, or a broken file, keeps nobody from starting one."""
    monkeypatch.setattr(definition, "RUN", tmp_path / "run")
    monkeypatch.setattr(definition, "DEFAULT_STATE", tmp_path / "state")
    for name, text in {
        "mine": '{"node_cidr": "172.29.1.0/24"}',
        "theirs": '{"node_cidr": "172.29.2.0/24,fd01::/64", "newer": true}',
        "odd": '{"node_cidr": "somewhere"}',
        "broken": "{",
    }.items():
        (tmp_path / "run" / name).mkdir(parents=True)
        (tmp_path / "run" / name / "box.json").write_text(text)
    assert list(map(str, networks_of_others("mine"))) == ["172.29.2.0/24", "fd01::/64"]

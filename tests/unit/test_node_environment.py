"""A container's environment, its /etc files, its OCI configuration: what they are built from and what they say."""

from __future__ import annotations

import base64

import pytest

from kubesvc.api.core import ConfigMap, Secret, Service, ServicePort, ServiceSpec
from kubesvc.api.meta import ObjectMeta
from kubesvc.api.pods import (
    Capabilities,
    Container,
    EnvFromSource,
    EnvVar,
    EnvVarSource,
    HostAlias,
    KeySelector,
    LocalReference,
    ObjectFieldSelector,
    Pod,
    PodDNSConfig,
    PodDNSConfigOption,
    PodSpec,
    SecurityContext,
)
from kubesvc.node import environment, etc, security, spec
from kubesvc.node.environment import ConfigError, Sources
from kubesvc.node.etc import Resolver
from kubesvc.node.images.accounts import Account
from kubesvc.node.images.image import HOST, base_environment
from kubesvc.node.spec import Bind

POD = Pod(
    metadata=ObjectMeta(name="web-0", namespace="shop", uid="u-1", labels={"app": "web"}),
    spec=PodSpec(node_name="node1", subdomain="web"),
)
SOURCES = Sources(
    {"settings": ConfigMap(metadata=ObjectMeta(name="settings"), data={"COLOUR": "red", "SIZE": "3"})},
    {"key": Secret(metadata=ObjectMeta(name="key"), data={"TOKEN": base64.b64encode(b"s3cret").decode()})},
)


def build(*env: EnvVar, env_from: tuple[EnvFromSource, ...] = (), services: tuple[Service, ...] = ()) -> dict[str, str]:
    container = Container(name="c", env=list(env), env_from=list(env_from))
    return environment.build(
        container,
        POD,
        SOURCES,
        services,
        addresses=["10.244.0.5", "fd00:10:244::5"],
        host_ips=["172.29.0.2", "fd00::2"],
        base=base_environment(HOST, environment.PATH, "web-0"),
    )


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$", "$"),
        ("$A", "$A"),
        ("$(A", "$(A"),
        ("100$", "100$"),
    ],
)
def test_expand(text: str, expanded: str) -> None:
    assert environment.expand(text, {"A": "1", "B": "2"}) == expanded


def test_env_sees_what_comes_before_it() -> None:
    found = build(EnvVar(name="A", value="1"), EnvVar(name="B", value="$(A)$(C)"), EnvVar(name="C", value="3"))
    assert (found["B"], found["C"]) == ("1$(C)", "3")


def field(path: str) -> EnvVar:
    return EnvVar(name="X", value_from=EnvVarSource(field_ref=ObjectFieldSelector(field_path=path)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web-0"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "web"),
        ("metadata.annotations['none']", ""),
        ("spec.nodeName", "node1"),
        ("spec.serviceAccountName", "default"),
        ("status.podIP", "10.244.0.5"),
        ("status.hostIP", "172.29.0.2"),
    ],
)
def test_field_ref(path: str, value: str) -> None:
    assert build(field(path))["X"] == value


def test_sources_in_order_of_precedence() -> None:
    env_from = (EnvFromSource(config_map_ref=LocalReference(name="settings")),)
    found = build(EnvVar(name="SIZE", value="9"), EnvVar(name="ALL", value="$(COLOUR)"), env_from=env_from)
    assert (found["COLOUR"], found["SIZE"], found["ALL"]) == ("red", "9", "red")


def test_secret_key_and_prefix() -> None:
    reference = EnvVar(name="T", value_from=EnvVarSource(secret_key_ref=KeySelector(name="key", key="TOKEN")))
    found = build(reference, env_from=(EnvFromSource(prefix="S_", secret_ref=LocalReference(name="key")),))
    assert (found["T"], found["S_TOKEN"]) == ("s3cret", "s3cret")


@pytest.mark.parametrize(
    ("name", "key", "message"),
    [("none", "COLOUR", 'configmap "none" not found'), ("settings", "none", "couldn't find key none in ConfigMap")],
)
def test_a_missing_source_is_named_unless_optional(name: str, key: str, message: str) -> None:
    def variable(optional: bool) -> EnvVar:
        selector = KeySelector(name=name, key=key, optional=optional)
        return EnvVar(name="X", value_from=EnvVarSource(config_map_key_ref=selector))

    with pytest.raises(ConfigError, match=message):
        build(variable(False))
    assert "X" not in build(variable(True))


def test_services_leave_their_variables_and_env_wins() -> None:
    service = Service(
        metadata=ObjectMeta(name="my-db"),
        spec=ServiceSpec(
            cluster_ip="10.96.0.7", ports=[ServicePort(port=5432, name="pg"), ServicePort(port=53, protocol="UDP")]
        ),
    )
    headless = Service(
        metadata=ObjectMeta(name="none"), spec=ServiceSpec(cluster_ip="None", ports=[ServicePort(port=1)])
    )
    found = build(EnvVar(name="MY_DB_SERVICE_PORT", value="1"), services=(service, headless))
    assert found["MY_DB_SERVICE_HOST"] == "10.96.0.7"
    assert found["MY_DB_SERVICE_PORT"] == "1"
    assert found["MY_DB_SERVICE_PORT_PG"] == "5432"
    assert found["MY_DB_PORT"] == found["MY_DB_PORT_5432_TCP"] == "tcp://10.96.0.7:5432"
    assert found["MY_DB_PORT_53_UDP_ADDR"] == "10.96.0.7"
    assert not any(name.startswith("NONE_") for name in found)


def test_hosts_names_the_pod_and_the_aliases() -> None:
    pod = Pod(
        metadata=POD.metadata,
        spec=PodSpec(subdomain="web", host_aliases=[HostAlias(ip="10.1.1.1", hostnames=["a.example", "b.example"])]),
    )
    lines = etc.hosts(pod, ["10.244.0.5", "fd00:10:244::5"], "cluster.local").splitlines()
    assert "10.244.0.5\tweb-0.web.shop.svc.cluster.local\tweb-0" in lines
    assert lines[-1] == "10.1.1.1\ta.example\tb.example"


MACHINE = Resolver(("192.0.2.53",), ("corp.example",), ("timeout:2",))


@pytest.mark.parametrize(
    ("policy", "host_network", "expected"),
    [
        (
            "ClusterFirst",
            False,
            Resolver(
                ("10.96.0.10",),
                ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"),
                ("ndots:5",),
            ),
        ),
        ("ClusterFirst", True, MACHINE),
        ("Default", False, MACHINE),
        ("None", False, Resolver()),
    ],
)
def test_dns_policy(policy: str, host_network: bool, expected: Resolver) -> None:
    pod = Pod(metadata=POD.metadata, spec=PodSpec(dns_policy=policy, host_network=host_network))
    assert etc.resolver(pod, MACHINE, ["10.96.0.10"], "cluster.local") == expected


def test_dns_config_adds_and_overrides() -> None:
    config = PodDNSConfig(
        nameservers=["192.0.2.1"],
        searches=["x.example"],
        options=[PodDNSConfigOption(name="ndots", value="2"), PodDNSConfigOption(name="edns0")],
    )
    pod = Pod(metadata=POD.metadata, spec=PodSpec(dns_config=config))
    found = etc.resolver(pod, Resolver(), ["10.96.0.10"], "cluster.local")
    assert found.nameservers == ("10.96.0.10", "192.0.2.1")
    assert found.searches[-1] == "x.example"
    assert found.options == ("ndots:2", "edns0")
    assert found.render().splitlines()[0].startswith("search shop.svc.cluster.local ")


def test_what_resolvers_cannot_use_is_left_out_and_said() -> None:
    """Three name servers, 32 search domains, 2048 characters of them."""
    long = [f"{n}{'x' * 59}.{'y' * 50}.example" for n in range(30)]
    config = PodDNSConfig(nameservers=["192.0.2.1", "192.0.2.2", "192.0.2.3"], searches=long)
    pod = Pod(metadata=POD.metadata, spec=PodSpec(dns_config=config))
    found, told = etc.within_limits(etc.resolver(pod, Resolver(), ["10.96.0.10"], "cluster.local"))
    assert found.nameservers == ("10.96.0.10", "192.0.2.1", "192.0.2.2")
    assert 1900 < len(" ".join(found.searches)) <= 2048
    assert found.searches[:4] == ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local", long[0])
    assert [line.split(",")[0] for line in told] == [
        "Nameserver limits were exceeded",
        "Search Line limits were exceeded",
    ]
    assert told[0].endswith("the applied nameserver line is: 10.96.0.10 192.0.2.1 192.0.2.2")
    assert etc.within_limits(found) == (found, [])


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, "web-0"),
        ({"hostname": "db"}, "db"),
        ({"subdomain": "web"}, "web-0"),
        ({"set_hostname_as_fqdn": True}, "web-0"),
        ({"subdomain": "web", "set_hostname_as_fqdn": True}, "web-0.web.shop.svc.cluster.local"),
        ({"host_network": True, "hostname": "db"}, "node1"),
    ],
)
def test_the_kernels_host_name(given: dict, name: str) -> None:
    pod = Pod(metadata=POD.metadata, spec=PodSpec(**given))
    assert etc.kernel_hostname(pod, "node1", "cluster.local") == name


def test_a_whole_name_longer_than_the_kernels_is_refused() -> None:
    pod = Pod(metadata=POD.metadata, spec=PodSpec(subdomain="w" * 40, set_hostname_as_fqdn=True))
    with pytest.raises(etc.HostnameTooLong, match=r"is too long \(64 characters is the max, 69 characters requested\)"):
        etc.kernel_hostname(pod, "node1", "cluster.local")


def test_the_machines_resolv_conf_is_understood() -> None:
    text = "# made by hand\nnameserver 192.0.2.53\nsearch a.example b.example\noptions rotate ndots:2\n"
    assert etc.parse_resolver(text) == Resolver(("192.0.2.53",), ("a.example", "b.example"), ("rotate", "ndots:2"))


def config(container: Container, *binds: Bind, network: str | None = "/n", cgroup: str | None = "/kubesvc/x") -> dict:
    return spec.build(
        POD,
        container,
        environment={"A": "1"},
        binds=binds,
        hostname="web-0",
        network=network,
        cgroup=cgroup,
        available=frozenset(security.CAPABILITIES) - {"CAP_MKNOD"},
        image=HOST,
        account=Account(),
    )


def test_oci_command_is_expanded_and_required() -> None:
    found = config(Container(name="c", command=["echo"], args=["$(A)", "$$(A)"], working_dir="/tmp"))
    assert found["process"]["args"] == ["echo", "1", "$(A)"]
    assert found["process"]["cwd"] == "/tmp"
    assert config(Container(name="c", args=["x"]))["process"]["args"] == ["x"]
    with pytest.raises(ConfigError, match="set `command`"):
        config(Container(name="c"))


def test_oci_namespaces_and_cgroup() -> None:
    container = Container(name="c", command=["x"])
    own = {n["type"]: n.get("path") for n in config(container)["linux"]["namespaces"]}
    assert own == {"pid": None, "ipc": None, "mount": None, "uts": None, "network": "/n"}
    on_host = config(container, network=None, cgroup=None)
    assert {n["type"] for n in on_host["linux"]["namespaces"]} == {"pid", "ipc", "mount", "uts"}
    assert "cgroupsPath" not in on_host["linux"]


def test_oci_capabilities_and_user() -> None:
    changes = SecurityContext(
        run_as_user=1000, capabilities=Capabilities(drop=["ALL"], add=["NET_BIND_SERVICE", "MKNOD"])
    )
    found = config(Container(name="c", command=["x"], security_context=changes))["process"]
    assert found["capabilities"]["bounding"] == ["CAP_NET_BIND_SERVICE"]
    assert found["user"]["uid"] == 1000


def test_oci_mounts_put_parents_first_and_the_last_of_a_target_wins() -> None:
    binds = (Bind("/1", "/data/inner"), Bind("/2", "/data"), Bind("/3", "/etc/hosts"), Bind("/4", "/etc/hosts"))
    found = [m for m in config(Container(name="c", command=["x"]), *binds)["mounts"] if m["type"] == "bind"]
    assert [(m["source"], m["destination"]) for m in found] == [
        ("/2", "/data"),
        ("/1", "/data/inner"),
        ("/4", "/etc/hosts"),
    ]

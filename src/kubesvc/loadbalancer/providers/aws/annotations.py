"""Every annotation of a Service that the AWS Load Balancer Controller or the in-tree provider knows, and what becomes
of it here: the guide's table is made of this one. Pure.

A wish that would be dangerous to pass over (who may connect, what the traffic is) is rejected; one that only costs
comfort is ignored, and an event says so.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kubesvc.loadbalancer.providers.standing import Standing

PREFIX = "service.beta.kubernetes.io/aws-load-balancer-"
SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
LISTENER_ATTRIBUTES = "listener-attributes."
NLB_CLASS = "service.k8s.aws/nlb"


class Annotation(msgspec.Struct, frozen=True):
    """`name` is what follows PREFIX, or the whole name; `means` says what it does, or what to do instead."""

    name: str
    standing: Standing
    means: str

    @property
    def full_name(self) -> str:
        return self.name if "/" in self.name else PREFIX + self.name


_S, _I, _R = Standing.SUPPORTED, Standing.IGNORED, Standing.REJECTED

TABLE = tuple(
    Annotation(*row)
    for row in (
        ("type", _S, "`external`, `nlb`, or `nlb-ip` for targets of type ip"),
        ("nlb-target-type", _S, "`instance` (node ports; the default) or `ip` (the pods themselves)"),
        ("scheme", _S, "`internal` (the default) or `internet-facing`; a load balancer can't change its scheme"),
        ("internal", _S, "`true` or `false`: the older form of `scheme`, which goes before it"),
        ("name", _S, "the load balancer's name, at most 32 letters, digits and hyphens; read when it is made"),
        ("subnets", _S, "ids or Name tags, one of each zone; without it, those tagged for the scheme's role"),
        ("ip-address-type", _S, "`ipv4` or `dualstack`"),
        ("eip-allocations", _S, "an Elastic IP for each subnet of an internet-facing one"),
        ("private-ipv4-addresses", _S, "an address for each subnet of an internal one"),
        ("ipv6-addresses", _S, "an address for each subnet of a dualstack one"),
        (SOURCE_RANGES, _S, "who may connect, when spec.loadBalancerSourceRanges says nothing"),
        ("security-group-prefix-lists", _S, "prefix lists that may connect beside the source ranges"),
        ("security-groups", _S, "ids or Name tags, instead of the security group that is made for the Service"),
        ("manage-backend-security-group-rules", _S, "`true`: nodes are opened also with `security-groups`"),
        ("disable-nlb-sg", _S, "`true`: without any security group; can't be changed later"),
        ("target-node-labels", _S, "only nodes with these labels, for targets of type instance"),
        ("ssl-cert", _S, "ARNs of certificates; the first is the default"),
        ("ssl-ports", _S, "ports, by number or name, that terminate TLS; without it all TCP ports do"),
        ("ssl-negotiation-policy", _S, "the security policy of TLS listeners"),
        ("backend-protocol", _S, "`ssl`: TLS to the targets as well, behind TLS listeners; `tcp`"),
        ("alpn-policy", _S, "`HTTP1Only`, `HTTP2Only`, `HTTP2Optional`, `HTTP2Preferred`, `None`"),
        ("proxy-protocol", _S, "`*`: PROXY protocol v2 to all targets"),
        ("proxy-protocol-per-target-group", _S, "ports whose targets get PROXY protocol v2"),
        ("healthcheck-protocol", _S, "`tcp`, `http`, `https`; `http` for policy Local on nodes"),
        ("healthcheck-port", _S, "a number or `traffic-port`; healthCheckNodePort for policy Local on nodes"),
        ("healthcheck-path", _S, "`/`; `/healthz` for policy Local on nodes"),
        ("healthcheck-interval", _S, "seconds, 5 to 300: 10"),
        ("healthcheck-timeout", _S, "seconds, 2 to 120: 10; 6 for policy Local on nodes"),
        ("healthcheck-healthy-threshold", _S, "2 to 10: 3; 2 for policy Local on nodes"),
        ("healthcheck-unhealthy-threshold", _S, "2 to 10: 3; 2 for policy Local on nodes"),
        ("healthcheck-success-codes", _S, "`200-399`"),
        ("attributes", _S, "the load balancer's attributes, `key=value,…`; one that is taken out keeps its value"),
        ("target-group-attributes", _S, "target groups' attributes; one that is taken out keeps its value"),
        (LISTENER_ATTRIBUTES + "PROTOCOL-PORT", _S, "a listener's attributes"),
        ("additional-resource-tags", _S, "tags of all that is made"),
        ("enable-tcp-udp-listener", _S, "not needed: one port in TCP and UDP is one listener; `false` refuses that"),
        ("access-log-enabled", _S, "the older form of `attributes: access_logs.s3.enabled`"),
        ("access-log-s3-bucket-name", _S, "the older form of `attributes: access_logs.s3.bucket`"),
        ("access-log-s3-bucket-prefix", _S, "the older form of `attributes: access_logs.s3.prefix`"),
        ("cross-zone-load-balancing-enabled", _S, "the older form of `attributes: load_balancing.cross_zone.enabled`"),
        ("enable-icmp-for-path-mtu-discovery", _S, "`on`: clients may send what path MTU discovery needs"),
        ("minimum-load-balancer-capacity", _I, "reserve capacity at the load balancer itself"),
        ("nlb-shield-advanced-protection", _I, "protect the load balancer in Shield itself"),
        ("access-log-emit-interval", _I, "of Classic Load Balancers; an NLB writes its log every five minutes"),
        ("connection-draining-enabled", _I, "of Classic Load Balancers; use `target-group-attributes`"),
        ("connection-draining-timeout", _I, "of Classic Load Balancers; use `target-group-attributes`"),
        ("connection-idle-timeout", _I, "of Classic Load Balancers; use `listener-attributes.TCP-PORT`"),
        ("eip-pool", _I, "name addresses with `eip-allocations`"),
        ("extra-security-groups", _R, "name them all in `security-groups`"),
        ("inbound-sg-rules-on-private-link-traffic", _R, "set it at the load balancer itself"),
        ("multi-cluster-target-group", _R, "targets of other clusters would be taken out; give each a Service"),
        ("enable-prefix-for-ipv6-source-nat", _R, "UDP on dualstack isn't served; leave it out"),
        ("source-nat-ipv6-prefixes", _R, "UDP on dualstack isn't served; leave it out"),
        ("quic-enabled-ports", _R, "QUIC by connection id isn't served; leave it out, and UDP goes by address"),
    )
)

_KNOWN = {annotation.full_name: annotation for annotation in TABLE}


def known(name: str) -> Annotation | None:
    """What there is to say of the annotation with that full name."""
    if name.startswith(PREFIX + LISTENER_ATTRIBUTES):
        return _KNOWN[PREFIX + LISTENER_ATTRIBUTES + "PROTOCOL-PORT"]
    return _KNOWN.get(name)


def remarks(annotations: Mapping[str, str]) -> list[str]:
    """What of a Service's annotations is passed over, a sentence each."""
    said: list[str] = []
    for name in sorted(annotations):
        found = known(name)
        if found is None and name.startswith(PREFIX):
            said.append(f"annotation {name} isn't known and is passed over; docs/guide/aws.md lists those that are")
        elif found is not None and found.standing is Standing.IGNORED:
            said.append(f"annotation {name} is passed over: {found.means}")
    return said


def rejected(annotations: Mapping[str, str]) -> Annotation | None:
    """The first that can't be served and must not be passed over."""
    found = (known(name) for name in sorted(annotations) if annotations[name] not in ("", "false", "off"))
    return next((one for one in found if one is not None and one.standing is _R), None)


def markdown() -> str:
    """The guide's table."""
    head = "| annotation | here | what it means, or what to do instead |\n|---|---|---|\n"
    return head + "\n".join(f"| `{a.name}` | {a.standing} | {a.means} |" for a in TABLE)

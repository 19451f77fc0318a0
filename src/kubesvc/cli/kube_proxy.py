"""The flags of kube-proxy that `kubesvc proxy` has no use for: each is answered by name, so that a manifest written for
kube-proxy either works or says what to change. Follows cmd/kube-proxy of Kubernetes 1.36.

    no use, and nothing is lost without it      a line in the log
    something would not be done                 an error that says what to do instead
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

_ALWAYS = "changes are programmed at once, each in about a millisecond"
_LOGS = "logs go to standard error as lines of text"
_API = "requests are few, and not limited"

NEEDLESS = {
    "config-sync-period": "watches are resumed, not refreshed",
    "feature-gates": "none of kube-proxy's features is behind a gate here",
    "iptables-localhost-nodeports": "the proxy mode is nftables; see --localhost-nodeports",
    "iptables-masquerade-bit": "the proxy mode is nftables; the bit of its mark is 14",
    "iptables-min-sync-period": _ALWAYS,
    "iptables-sync-period": _ALWAYS,
    "ipvs-min-sync-period": _ALWAYS,
    "ipvs-sync-period": _ALWAYS,
    "kube-api-burst": _API,
    "kube-api-content-type": _API,
    "kube-api-qps": _API,
    "log-flush-frequency": _LOGS,
    "log-json-info-buffer-size": _LOGS,
    "log-json-split-stream": _LOGS,
    "log-text-info-buffer-size": _LOGS,
    "log-text-split-stream": _LOGS,
    "oom-score-adj": "set it where the process is started, as with systemd's OOMScoreAdjust=",
    "profiling": "there is no profiler to serve",
    "proxy-port-range": "kube-proxy doesn't use it either",
    "show-hidden-metrics-for-version": "no metric is hidden",
    "vmodule": _LOGS,
    "conntrack-tcp-be-liberal": "it is always set: packets out of window must not end a connection",
}
"""Flag -> why it changes nothing."""

IMPOSSIBLE = {
    "bind-address": "the node's addresses are those of its Node object's status",
    "bind-address-hard-fail": "a port that can't be listened on is logged and tried again",
    "boot-id-file": "it isn't read",
    "config": "give what the file says as flags: kubesvc proxy --help lists them",
    "healthz-port": "use --healthz-bind-address IP:PORT",
    "init-only": "what needs privileges is done at each start: give the process CAP_NET_ADMIN",
    "ipvs-exclude-cidrs": "there is no ipvs here",
    "ipvs-scheduler": "there is no ipvs here; endpoints are picked at random",
    "ipvs-strict-arp": "there is no ipvs here; set net.ipv4.conf.all.arp_ignore and arp_announce if you need them",
    "ipvs-tcp-timeout": "there is no ipvs here; see --conntrack-tcp-timeout-established",
    "ipvs-tcpfin-timeout": "there is no ipvs here",
    "ipvs-udp-timeout": "there is no ipvs here; see --conntrack-udp-timeout",
    "machine-id-file": "it isn't read",
    "master": "name the server in the kubeconfig",
    "metrics-port": "use --metrics-bind-address IP:PORT",
    "pod-bridge-interface": "pods are told by their addresses: use --cluster-cidr",
    "pod-interface-name-prefix": "pods are told by their addresses: use --cluster-cidr",
    "write-config-to": "there is no configuration file",
}
"""Flag -> what to do instead."""

ONLY = {
    "proxy-mode": (("nftables",), "nftables is the only one here"),
    "logging-format": (("text",), _LOGS),
}
"""Flag -> the values that say what is done anyway, and a remedy for the others."""


def flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command all of them, hidden from its help."""
    for name in (*NEEDLESS, *IMPOSSIBLE, *ONLY):
        command = click.option(
            f"--{name}",
            name.replace("-", "_"),
            hidden=True,
            expose_value=False,
            is_flag=False,
            flag_value="true",
            callback=_answer,
        )(command)
    return command


def _answer(_ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    name = param.opts[0].removeprefix("--")
    if name in IMPOSSIBLE:
        raise click.UsageError(f"--{name} is kube-proxy's, and not to be had here: {IMPOSSIBLE[name]}")
    if name in ONLY:
        accepted, remedy = ONLY[name]
        if value not in accepted:
            raise click.UsageError(f"--{name}={value} is not to be had here: {remedy}")
        return
    click.echo(f"--{name} changes nothing here: {NEEDLESS[name]}", err=True)

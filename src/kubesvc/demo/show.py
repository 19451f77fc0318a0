"""The scenes: each promise of a Service as commands that run, and a check of what they showed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.request
from ipaddress import IPv4Address
from pathlib import Path

import click

from kubesvc.box.definition import Box
from kubesvc.box.network import host_link
from kubesvc.demo.programmed import RemovalWatch
from kubesvc.demo.stage import BrokenPromise, Stage
from kubesvc.kernel import netns

NAMESPACE = "shop"
WEB = f"http://web.{NAMESPACE}.svc.cluster.local/"
CONNECTIONS = 3000
WEB_REPLICAS = 4
ALLOWED_DEVIATION = 0.10
LOAD_SECONDS = 6


class Show:
    """One performance on one box."""

    def __init__(self, stage: Stage, box: Box) -> None:
        self.stage = stage
        self.box = box

    def tool(self, *words: str, quiet: bool = False) -> str:
        """Run one of the client pod's tools."""
        return self.stage.kubectl("exec", "client", "--", "python3", f"/tools/{words[0]}.py", *words[1:], quiet=quiet)

    def field(self, kind: str, name: str, path: str) -> str:
        return self.stage.kubectl("get", kind, name, "-o", f"jsonpath={{{path}}}", quiet=True)

    def pods(self, app: str) -> dict[str, str]:
        """Name -> address of a tier's running pods."""
        pods = json.loads(self.stage.kubectl("get", "pods", "-l", f"app={app}", "-o", "json", quiet=True))["items"]
        running = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        return {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in running}

    # ── scenes ───────────────────────────────────────────────────────────────────────────────────────────────────

    def three_tiers(self) -> None:
        """One request through all three tiers, each found by its Service's name alone."""
        for tier in ("db", "app", "web"):
            self.stage.kubectl("rollout", "status", f"deployment/{tier}", "--timeout=60s")
        self.stage.kubectl("get", "services")
        answer = json.loads(self.tool("get", WEB))
        served = [answer.get(tier, "") for tier in ("web", "app", "db")]
        self.stage.promise(
            all(name.startswith(f"{tier}-") for name, tier in zip(served, ("web", "app", "db"), strict=True)),
            "one request went through web, app and db, found by their Services' names",
            f"the answer was {answer}",
        )

    def spread(self) -> None:
        """New connections are spread evenly over the replicas.

        Picks are uniformly random, so about one sample in 150 has a replica more than 10 % off: a second one decides.
        """
        share = CONNECTIONS / WEB_REPLICAS
        for _ in range(2):
            counts: dict[str, int] = json.loads(self.tool("spread", WEB, "web", str(CONNECTIONS)))
            worst = max(abs(count - share) / share for count in counts.values())
            if worst <= ALLOWED_DEVIATION:
                break
        for name, count in sorted(counts.items()):
            click.echo(f"  {name:<24} {count:5}  {'█' * round(count / share * 30)} {count / share - 1:+.1%}")
        self.stage.promise(
            len(counts) == WEB_REPLICAS and worst <= ALLOWED_DEVIATION,
            f"{CONNECTIONS} connections over {WEB_REPLICAS} replicas, none more than {worst:.1%} off its share",
            f"{len(counts)} replicas answered; expected {WEB_REPLICAS} within {ALLOWED_DEVIATION:.0%}",
        )

    def death_under_load(self) -> None:
        """A pod dies; once its removal is programmed no request fails."""
        victim, address = next(iter(sorted(self.pods("web").items())))
        watch = RemovalWatch({node: netns.named(self.box.namespace(node)) for node in self.box.node_names})
        try:
            load = self.stage.start(
                "kubectl", "-n", NAMESPACE, "exec", "client", "--", "python3", "/tools/load.py", WEB, str(LOAD_SECONDS)
            )  # fmt: skip
            assert load.stdout is not None
            load.stdout.readline()
            time.sleep(1)
            self.stage.show_command(["kill", "-9", f"<the first process of {victim}, {address}>"])
            killed = time.time()
            os.kill(first_process(victim), signal.SIGKILL)
            removed = watch.wait(IPv4Address(address), LOAD_SECONDS)
            output, errors = load.communicate(timeout=LOAD_SECONDS + 30)
        finally:
            watch.close()
        self.stage.promise(
            set(removed) == set(self.box.node_names),
            "every node's kernel forgot it",
            f"only {sorted(removed)} did",
        )
        programmed = max(removed.values())
        click.echo(f"  removed from the last node's data plane {(programmed - killed) * 1000:.0f} ms after its death")
        self.stage.promise(load.returncode == 0, "the load ran to its end", errors)
        result = json.loads(output.splitlines()[-1])
        asked: int = result["asked"]
        failed: list[tuple[float, float, str]] = result["failed"]
        late = [entry for entry in failed if entry[0] > programmed]
        click.echo(f"  {asked} requests in {LOAD_SECONDS} s; {len(failed) - len(late)} met the dying pod")
        self.stage.promise(
            asked > 100 and not late,
            "no request failed after the removal was programmed",
            f"failed afterwards: {late[:3]}",
        )

    def address_is_stable(self) -> None:
        """The cluster IP survives a rollout and a change of scale."""
        before = self.field("service", "web", ".spec.clusterIP")
        pods = set(self.pods("web"))
        self.stage.kubectl("rollout", "restart", "deployment/web")
        self.stage.kubectl("rollout", "status", "deployment/web", "--timeout=90s")
        self.stage.kubectl("scale", "deployment/web", "--replicas=6")
        self.stage.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        self.stage.kubectl("scale", "deployment/web", f"--replicas={WEB_REPLICAS}")
        after = self.field("service", "web", ".spec.clusterIP")
        self.stage.promise(
            before == after and not pods & set(self.pods("web")),
            f"all pods are new, the address is still {after}",
            f"it was {before}, it is {after}",
        )

    def node_ports(self) -> None:
        """The node port answers on every node, whichever the pods are on."""
        port = self.field("service", "web-nodeport", ".spec.ports[0].nodePort")
        for node in self.box.node_names:
            url = f"http://{self.box.node_ip(node)}:{port}/"
            self._from_this_machine(url)
        self.stage.promise(True, f"port {port} answers on all {self.box.nodes} nodes")

    def headless(self) -> None:
        """A headless Service's name answers with the pods' own addresses."""
        name = f"app-peers.{NAMESPACE}.svc.cluster.local"
        answer = self.tool("lookup", name, "A")
        found = {line.split()[3] for line in answer.splitlines()[1:]}
        expected = set(self.pods("app").values())
        self.stage.promise(
            found == expected and len(found) > 1,
            f"{len(found)} addresses, the pods' own",
            f"the name says {sorted(found)}, the pods have {sorted(expected)}",
        )

    def external_name(self) -> None:
        """An ExternalName is a CNAME in the cluster's DNS."""
        target = self.field("service", "payments", ".spec.externalName")
        answer = self.tool("lookup", f"payments.{NAMESPACE}.svc.cluster.local", "CNAME")
        self.stage.promise(
            any(line.split()[2:] == ["CNAME", target] for line in answer.splitlines()[1:]),
            f"payments is {target}, changed in one place",
            answer,
        )

    def load_balancer(self) -> None:
        """The load-balancer address answers from this machine; it is no interface's own."""
        self.stage.kubectl(
            "wait", "--for=jsonpath={.status.loadBalancer.ingress}", "service/web-public", "--timeout=30s"
        )  # fmt: skip
        self.stage.kubectl("get", "service", "web-public")
        address = self.field("service", "web-public", ".status.loadBalancer.ingress[0].ip")
        self._from_this_machine(f"http://{address}/")
        own = subprocess.run(["ip", "-o", "addr"], capture_output=True, text=True, check=True).stdout
        self.stage.promise(f" {address}/" not in own, f"{address} answers this machine, and is nobody's own address")

    def inside_only(self) -> None:
        """A cluster IP is for the inside of the cluster."""
        address = self.field("service", "web", ".spec.clusterIP")
        link = host_link(self.box.name)
        self.stage.show_command(["curl", "--interface", link, f"http://{address}/"])
        error = _connect_over(link, address)
        click.echo(f"  {error or 'connected'}")
        self.stage.promise(error is not None, f"{address} is not reachable from this machine")

    def _from_this_machine(self, url: str) -> None:
        self.stage.show_command(["curl", url])
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                self.stage.show_output(answer.read().decode())
        except OSError as error:
            raise BrokenPromise(f"{url} doesn't answer: {error}") from error


def _connect_over(link: str, address: str) -> OSError | None:
    """Try to connect to port 80 of `address` over one interface, where no packet can stray elsewhere."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
        asking.settimeout(3)
        try:
            asking.connect((address, 80))
        except OSError as error:
            return error
    return None


def first_process(name: str) -> int:
    """The pid, on this machine, of the first process of a pod's container. Raises BrokenPromise."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"HOSTNAME={name}\0".encode() not in (entry / "environ").read_bytes() + b"\0":
                continue
            status = (entry / "status").read_text()
            ids = next(line for line in status.splitlines() if line.startswith("NSpid")).split()
            if len(ids) > 2 and ids[-1] == "1":
                return int(entry.name)
    raise BrokenPromise(f"the first process of pod {name} was not found")

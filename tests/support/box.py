"""A real box for a test: started by the real command, ended whatever happens.

`kubesvc up` runs in the foreground and dies with the test's process (the kernel sends it SIGTERM, and it takes the box
down), so that nothing stays behind when a test run is killed.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

KUBESVC = Path(sys.executable).with_name("kubesvc")
NEWEST_KUBECTL = Path(sys.executable).with_name("kubectl")
PR_SET_PDEATHSIG = 1
GROUPS = ("image", "node")  # commands with commands of their own


def kubectls() -> list[str]:
    """Every kubectl there is: PyPI's, and the machine's own when it has another."""
    own = shutil.which("kubectl", path="/usr/local/bin:/usr/bin:/bin")
    return [str(NEWEST_KUBECTL)] + ([own] if own else [])


def unique_name() -> str:
    return f"t{os.getpid() % 100000}-{secrets.token_hex(2)}"


def own_network() -> tuple[str, str]:
    """A node network that no other box chooses while this one is down."""
    return "--node-cidr", f"10.{200 + secrets.randbelow(10)}.{secrets.randbelow(256)}.0/24"


def _die_with_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a suite in the background ignores it, and so would its children
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def eventually(check: Callable[[], object], patience: float = 60.0, what: str = "") -> object:
    """The first truthy result of `check` before the deadline; the failure names `what` and the last error."""
    deadline = time.monotonic() + patience
    last: object = None
    while True:
        try:
            last = check()
            if last:
                return last
        except (AssertionError, LookupError, OSError, subprocess.SubprocessError) as error:  # not there yet
            last = error
        assert time.monotonic() < deadline, f"not within {patience} s: {what or check}; last: {last!r}"
        time.sleep(0.05)  # between two looks, not instead of one


def answers(dug: str) -> str:
    """What `dig +short` found, without its remarks on tries that went wrong: they are on standard output too."""
    return "\n".join(line for line in dug.splitlines() if not line.startswith(";"))


class BoxUnderTest:
    """A box: its name, its directory, and commands on it."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.output: list[str] = []
        self._up: subprocess.Popen[str] | None = None

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    def namespace(self, part: str) -> str:
        return f"kubesvc-{self.name}-{part}"

    def up(self, *options: str) -> None:
        """`kubesvc up`; returns when it says that it is ready."""
        self._up = subprocess.Popen(
            [str(KUBESVC), "up", "--name", self.name, "--dir", str(self.directory), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=_die_with_parent,
        )
        assert self._up.stdout is not None
        self.output = []
        for line in self._up.stdout:
            self.output.append(line)
            if "The box runs until" in line:
                return
        raise AssertionError(f"up ended with {self._up.wait()}: {''.join(self.output)}{self.logs()}")

    def logs(self) -> str:
        """The end of every log, for a failure's message."""
        return "".join(f"\n== {log.name}\n{log.read_text()[-3000:]}" for log in (self.directory / "logs").glob("*.log"))

    def interrupt(self) -> str:
        """Ctrl-C: take the box down; what `up` printed then."""
        assert self._up is not None
        self._up.send_signal(signal.SIGINT)
        rest, _ = self._up.communicate(timeout=60)
        return rest

    def status(self) -> Any:
        """What the supervisor keeps: itself (`supervisor`) and its `processes`, each with name and pid."""
        return json.loads((Path("/run/kubesvc") / self.name / "status.json").read_bytes())

    def pids(self) -> dict[str, int]:
        """Name -> pid of the supervisor's processes; 0 while there is none."""
        return {process["name"]: process["pid"] for process in self.status()["processes"]}

    def kill(self) -> None:
        """kill -9 of everything, and wait for the foreground `up`."""
        assert self._up is not None
        status = self.status()
        for process in (status["supervisor"], *status["processes"]):
            with suppress(ProcessLookupError):  # it ended with its supervisor
                os.kill(process["pid"], signal.SIGKILL)
        self._up.communicate(timeout=60)

    def kubesvc(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        depth = 2 if words[0] in GROUPS else 1
        command = [str(KUBESVC), *words[:depth], "--name", self.name, "--dir", str(self.directory), *words[depth:]]
        found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert not check or found.returncode == 0, f"{command}: {found.stdout}{found.stderr}"
        assert "Traceback" not in found.stderr, found.stderr
        return found

    def kubectl(self, *words: str, input: str | None = None, check: bool = True, program: str = "") -> str:
        """kubectl's standard output; with `check=False` its standard error too."""
        found = subprocess.run(
            [program or str(NEWEST_KUBECTL), *words],
            env=os.environ | {"KUBECONFIG": str(self.kubeconfig)},
            input=input,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if check:
            assert found.returncode == 0, f"kubectl {words}: {found.stdout}{found.stderr}"
            return found.stdout
        return found.stdout + found.stderr

    def start_kubectl(self, *words: str) -> subprocess.Popen[str]:
        """A kubectl that goes on while the test does other things; it ends with the test's process."""
        return subprocess.Popen(
            [str(NEWEST_KUBECTL), *words],
            env=os.environ | {"KUBECONFIG": str(self.kubeconfig)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_die_with_parent,
        )

    def get(self, *words: str) -> dict:
        """`kubectl get … -o json`, decoded."""
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def wait_programmed(self, namespace: str = "default") -> None:
        """Wait until each node's proxy has every pod of each Service: a pod is Ready before anybody hears of it."""
        nodes = [node["metadata"]["name"] for node in self.get("nodes")["items"]]
        services = self.get("services", "-n", namespace)["items"]
        pods = self.get("pods", "-n", namespace)["items"]
        wanted = [(ip, pod["ip"]) for service in services for ip in _addresses(service)
                  for pod in _behind(service, pods) if (":" in ip) == (":" in pod["ip"])]  # fmt: skip

        def has_all(node: str) -> bool:
            lines = self.inside(node, "nft", "list", "table", "inet", "kubesvc").splitlines()
            return all(any(f" {ip} . " in line and f" : {pod} . " in line for line in lines) for ip, pod in wanted)

        for node in nodes:
            eventually(lambda node=node: has_all(node), what=f"{node} has {wanted}")  # type: ignore[misc]

    def inside(self, node: str, *command: str) -> str:
        """Run a command in a node's network namespace; its standard output."""
        words = ["ip", "netns", "exec", self.namespace(node), *command]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout

    def close(self) -> None:
        if self._up is not None and self._up.poll() is None:
            self._up.send_signal(signal.SIGTERM)
            try:
                self._up.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                self._up.kill()
                self._up.communicate()
        subprocess.run(
            [str(KUBESVC), "down", "--purge", "--name", self.name, "--dir", str(self.directory)],
            capture_output=True,
            timeout=120,
            check=False,
        )


def _addresses(service: dict) -> list[str]:
    return [ip for ip in service["spec"].get("clusterIPs", ()) if ip != "None"]


def _behind(service: dict, pods: list[dict]) -> list[dict]:
    """The addresses of the pods that a Service selects, where every node is to have them."""
    selector = service["spec"].get("selector")
    if not selector or service["spec"].get("internalTrafficPolicy") == "Local":
        return []
    chosen = [pod for pod in pods if selector.items() <= pod["metadata"].get("labels", {}).items()]
    return [ip for pod in chosen for ip in pod["status"].get("podIPs", ())]


@contextmanager
def fresh_box(directory: Path) -> Iterator[BoxUnderTest]:
    """A box that is not started yet, under a name of its own; gone afterwards."""
    box = BoxUnderTest(unique_name(), directory)
    try:
        yield box
    finally:
        box.close()


@contextmanager
def machine(*, changes: bool = False) -> Iterator[None]:
    """For tests that look at this machine's own network: nobody who `changes` it does so beside them, in whichever
    suite."""
    with open("/tmp/kubesvc-tests.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if changes else fcntl.LOCK_SH)
        yield


def footprint(box: BoxUnderTest) -> dict[str, list[str]]:
    """Everything on this machine that a box could have put there; other boxes' things are left out."""

    def ours(lines: list[str]) -> list[str]:
        return sorted(line for line in lines if box.name in line or not ("kubesvc-" in line or "ks-" in line))

    def output(*command: str) -> list[str]:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    links = [
        f"{link['ifname']} {link.get('linkinfo', {})}" for link in json.loads("".join(output("ip", "-j", "-d", "link")))
    ]
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return {
        # Those of a `Lab`, and of tests without one, are another test's.
        "namespaces": ours([p.name for p in Path("/run/netns").glob("*") if not p.name.startswith(("t-", "kst"))]),
        "links": ours(links),
        "addresses": ours(output("ip", "-o", "addr")),
        # `if7` is how `ip` names a link that went, and its route with it, while it was listing: another box's.
        "routes": ours([line for line in output("ip", "route") if not re.search(r" dev if\d+ ", line)]),
        "rules": ours(output("nft", "list", "ruleset")),
        "forwarding": [
            Path(f"/proc/sys/net/{name}").read_text() for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
        ],
        "mounts": [mount for mount in mounts if box.name in mount],
        "cgroups": [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/kubesvc/{box.name}")],
        "processes": _processes(box),
        "run": [str(path) for path in Path("/run/kubesvc").glob(box.name)],
    }


def _processes(box: BoxUnderTest) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            traces = words + (entry / "cgroup").read_text() + (entry / "mountinfo").read_text()
        except OSError:
            continue
        if box.name in traces and "kubesvc down" not in words and int(entry.name) != os.getpid():
            found.append(words)
    return sorted(found)

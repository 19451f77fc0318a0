"""`kubesvc dns --workers`: several processes on one address, as one server to whoever asks."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from kubesvc.dns.workers import Board, added, usual
from support.apiserver import tls_server
from support.box import eventually
from support.dns_zone import texts
from support.ports import free_port

HELD = "from kubesvc.dns import main; main.HOLD_SECONDS = 60; from kubesvc.cli.main import main; main()"
"""`kubesvc`, whose questions wait for the caches on a slow machine, too."""

ASKED = 60  # from as many ports: that one worker gets none of them happens once in 2**59


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 1), (4, 1), (8, 2), (16, 4), (64, 8)])
def test_workers_that_cores_are_worth(cores: int, workers: int) -> None:
    """One below 8 cores: those who ask need some too."""
    assert usual(cores) == workers


def test_metrics_of_workers_are_added_up() -> None:
    """Counters and buckets are summed, sample by sample; an upstream is up when all say so."""
    first = '# TYPE a counter\na{x="1"} 2\n# TYPE u_up gauge\nu_up{to="y"} 1\nb 0.5\n'
    second = '# TYPE a counter\na{x="1"} 3\na{x="2"} 1\n# TYPE u_up gauge\nu_up{to="y"} 0\nb 1\n'
    board = Board(3)
    board.write(1, second)
    assert board.total(0, first) == added([first, second])
    assert board.total(0, first).splitlines() == [
        "# TYPE a counter",
        'a{x="1"} 5',
        "# TYPE u_up gauge",
        'u_up{to="y"} 0',
        "b 1.5",
        'a{x="2"} 1',
    ]
    board.write(1, "a 1\n")
    assert board.read(1) == "a 1\n"
    with pytest.raises(ValueError, match="expected at most"):
        board.write(1, "x" * (1 << 18))


class Service:
    """`kubesvc dns` with two workers on 127.0.0.1."""

    def __init__(self, kubeconfig: Path) -> None:
        self.port, self.http = free_port(), free_port()
        where = f"--bind-address 127.0.0.1:{self.port} --http-bind-address 127.0.0.1:{self.http}"
        how = "--workers 2 --forward 192.0.2.53 --cluster-cidr 10.96.0.0/16 --no-events --lameduck 0"
        command = [sys.executable, "-c", HELD, "dns", "--kubeconfig", str(kubeconfig), *where.split(), *how.split()]
        self.process = subprocess.Popen(command)

    def workers(self) -> list[int]:
        pid = self.process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def page(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=5) as reply:
                return str(reply.read().decode())
        except OSError:
            return ""

    def counted(self) -> int:
        return sum(int(n) for n in re.findall(r"^coredns_dns_requests_total.*\} (\d+)$", self.page("/metrics"), re.M))

    def ask_from_many_ports(self) -> list[list[str]]:
        """Ask from ASKED ports at once, each once; an answer must come to every one."""
        query = dns.message.make_query("kubernetes.default.svc.cluster.local", "A").to_wire()
        with ExitStack() as stack:
            asking = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(ASKED)]
            for one in asking:
                one.settimeout(60)
                one.connect(("127.0.0.1", self.port))
                one.send(query)
            return [texts(dns.message.from_wire(one.recv(512))) for one in asking]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with tls_server(tmp_path) as api:
        one = Service(api.kubeconfig)
        try:
            eventually(lambda: one.page("/ready") == "ok\n", what="the first worker ready")
            eventually(lambda: len(one.workers()) == 2, what="the second worker")
            yield one
        finally:
            one.process.terminate()
            one.process.wait(60)


def test_workers_share_the_questions_and_lose_none(service: Service) -> None:
    """Both answer; what is asked of one that is killed waits for its successor; the metrics are everybody's."""
    expected = [["A 10.96.0.1"]] * ASKED
    first, second = service.workers()
    assert service.ask_from_many_ports() == expected
    eventually(lambda: service.counted() == ASKED, what="every answer counted")
    os.kill(second, signal.SIGKILL)
    eventually(lambda: second not in service.workers(), what="its end")
    assert service.ask_from_many_ports() == expected
    assert first in service.workers()
    assert second not in service.workers()
    assert len(service.workers()) == 2
    service.process.terminate()
    assert service.process.wait(60) == 0

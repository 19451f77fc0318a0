"""Which resolvers are forwarded to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import dns.message
import dns.name
import dns.rdatatype
import pytest

from kubesvc.dns import upstreams
from kubesvc.dns.config import plain_socket
from kubesvc.dns.forward import Forwarder
from kubesvc.dns.resolver import Resolver
from support.dns_upstream import Upstream, example, upstream
from support.dns_zone import small_cluster

PLAIN = """\
# made by hand
search example.com
nameserver 192.0.2.53
nameserver 2001:db8::53 # the second
nameserver 192.0.2.53
nameserver nonsense
nameserver
options ndots:1
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """(resolv.conf, the one behind systemd-resolved), the latter with a real resolver."""
    behind = tmp_path / "behind"
    behind.write_text("nameserver 192.0.2.99\n")
    return tmp_path / "resolv.conf", behind


def test_each_address_once_in_order(files: tuple[Path, Path]) -> None:
    """Comments, doubles and what isn't an address are passed over."""
    files[0].write_text(PLAIN)
    assert upstreams.find(*files) == ("192.0.2.53", "2001:db8::53")


def test_the_stub_of_systemd_resolved_is_seen_through(files: tuple[Path, Path]) -> None:
    """127.0.0.53 stands for the resolvers behind it."""
    files[0].write_text("nameserver 127.0.0.53\noptions edns0 trust-ad\n")
    assert upstreams.find(*files) == ("192.0.2.99",)


def test_the_stub_stays_when_nothing_is_known_behind_it(files: tuple[Path, Path]) -> None:
    """A box asks from the host's namespace, where the stub does answer."""
    files[0].write_text("nameserver 127.0.0.53\n")
    files[1].unlink()
    assert upstreams.find(*files) == ("127.0.0.53",)


def test_another_loopback_resolver_is_kept(files: tuple[Path, Path]) -> None:
    """A dnsmasq on 127.0.0.1 answers in the host's namespace."""
    files[0].write_text("nameserver 127.0.0.1\n")
    assert upstreams.find(*files) == ("127.0.0.1",)


def test_own_address_would_be_a_loop(files: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    """A host that asks the cluster isn't asked by it."""
    files[0].write_text("nameserver 10.96.0.10\nnameserver 192.0.2.53\n")
    assert upstreams.find(*files, own=["10.96.0.10"]) == ("192.0.2.53",)
    assert "10.96.0.10" in caplog.text


def test_no_file_is_no_resolver(files: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    """A machine without resolv.conf has none, and the log says why."""
    assert upstreams.find(*files) == ()
    assert "No such file" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.53", ("192.0.2.53", 53)),
        ("192.0.2.53:5353", ("192.0.2.53", 5353)),
        ("2001:db8::53", ("2001:db8::53", 53)),
        ("[2001:db8::53]:5353", ("2001:db8::53", 5353)),
        ("[2001:db8::53]", ("2001:db8::53", 53)),
    ],
)
def test_endpoint(text: str, expected: tuple[str, int]) -> None:
    """An upstream may name its port."""
    assert upstreams.endpoint(text) == expected


@pytest.mark.parametrize("text", ["", "resolver.example.com", "192.0.2.53:x", "[2001:db8::53"])
def test_what_isnt_an_endpoint(text: str) -> None:
    """A name, or a port that is none, is an error at the start and not at the first question."""
    with pytest.raises(ValueError):
        upstreams.endpoint(text)


def test_the_last_search_line_counts(files: tuple[Path, Path]) -> None:
    """`domain` is a search path of one; what isn't a name is passed over."""
    files[0].write_text("domain old.example\nsearch corp.example . a..b lab.example # two\n")
    assert upstreams.find_searches(files[0]) == ("corp.example", "lab.example")
    assert upstreams.find_searches(files[1].with_name("none")) == ()


# ── while it runs ────────────────────────────────────────────────────────────────────────────────────────────────────


class Machine:
    """A machine whose upstream may begin and cease to lead back to our server."""

    def __init__(self, above: Upstream) -> None:
        self.above = above
        self.forwarder = Forwarder((above.address,), plain_socket, clock=asyncio.get_running_loop().time)
        self.resolver = Resolver(small_cluster(), self.forwarder)
        self.tasks: set[asyncio.Task[None]] = set()

    def lead_back(self, query: dns.message.Message) -> None:
        """What the upstream is asked comes to us; it has nothing to say itself."""
        task = asyncio.ensure_future(self._ask(query.to_wire()))
        self.tasks.add(task)

    async def _ask(self, query: bytes) -> None:
        await self.resolver.answer(query, tcp=False)

    async def end(self, *watching: asyncio.Task[None]) -> None:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, *self.tasks, return_exceptions=True)
        await self.forwarder.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 (a state of the code under test, which has no event for it)
            await asyncio.sleep(0.005)  # between two looks


async def test_loop_that_begins_later_is_found_and_one_that_ends_is_forgiven(caplog: pytest.LogCaptureFixture) -> None:
    """Probes go on: the machine's resolver may be pointed at the cluster, and away from it, at any time."""
    caplog.set_level("INFO")
    async with upstream() as above:
        one = Machine(above)
        watching = asyncio.create_task(one.forwarder.watch(loop_seconds=0.02, look_seconds=0.01))
        await until(lambda: len(above.asked) > 3)
        (asked,) = one.forwarder.upstreams
        assert not asked.looping
        above.reply = one.lead_back
        await until(lambda: asked.looping)
        assert "a forwarding loop: what 127.0.0.1 port" in caplog.text
        assert caplog.text.count("a forwarding loop") == 1
        above.reply = example
        await until(lambda: not asked.looping)
        assert "does not lead back to this server any more" in caplog.text
        reply = await one.forwarder.ask(dns.name.from_text("www.example.com"), dns.rdatatype.A)
        assert reply.message.answer
        await one.end(watching)


async def test_upstreams_that_change_are_asked_and_probed_at_once(tmp_path: Path) -> None:
    """resolv.conf is looked at again; a file that says nobody keeps those there are."""
    async with upstream() as old, upstream() as new:
        file = tmp_path / "upstreams"
        file.write_text(old.address)
        one = Machine(old)

        looks = 0

        def find() -> tuple[str, ...]:
            nonlocal looks
            looks += 1
            return tuple(file.read_text().split())

        watching = asyncio.create_task(one.forwarder.watch(find, loop_seconds=3600, look_seconds=0.01))
        await until(lambda: len(old.asked) == 1)
        (kept,) = one.forwarder.upstreams
        file.write_text(f"{old.address} {new.address}")
        await until(lambda: len(one.forwarder.upstreams) == 2)
        assert kept in one.forwarder.upstreams
        await until(lambda: any("loop-probe" in question for question in new.asked))
        file.write_text(new.address)
        await until(lambda: len(one.forwarder.upstreams) == 1)
        asked = len(old.asked)
        reply = await one.forwarder.ask(dns.name.from_text("www.example.com"), dns.rdatatype.A)
        assert reply.message.answer
        assert len(old.asked) == asked
        file.write_text("")
        before = looks
        await until(lambda: looks > before + 1)
        assert len(one.forwarder.upstreams) == 1
        await one.end(watching)

"""Which resolvers are forwarded to."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubesvc.dns import upstreams

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

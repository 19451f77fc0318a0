"""How everything is programmed: where packets go through the table in one transaction, else a piece at a time."""

from __future__ import annotations

import errno

import pytest

from kubesvc.kernel.nft.memory import MemoryNft
from kubesvc.kernel.nft.transaction import AddElements, Transaction
from kubesvc.proxy import maps, nftables
from kubesvc.proxy.layout import TABLE
from kubesvc.proxy.nftables import NftablesBackend
from support.proxy import RANGES, changes, frontend

EVERYTHING = changes(*(frontend(f"10.96.0.{n}", 80, "10.244.0.1", "10.244.0.2", owner=f"s{n}") for n in range(1, 21)))


class Seen(MemoryNft):
    """Remembers how many elements each transaction had, and whether there were chains before it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, bool]] = []
        self.refuses = 0  # the number of the transaction that is refused

    def commit(self, transaction: Transaction) -> None:
        added = [len(o.elements) for o in transaction.operations if isinstance(o, AddElements)]
        self.seen.append((sum(added), self.comment(TABLE) is not None and bool(self.chains(TABLE))))
        if len(self.seen) == self.refuses:
            self.refuse_next = errno.ENOMEM
        super().commit(transaction)


@pytest.fixture
def nft(monkeypatch: pytest.MonkeyPatch) -> Seen:
    monkeypatch.setattr(nftables, "_PIECE", 16)
    return Seen()


def whole(nft: Seen) -> list[int]:
    return [len(nft.elements(TABLE, one)) for one in (maps.FRONTENDS["4"], maps.BACKENDS["4"])]


def test_a_table_that_is_not_there_yet_is_filled_in_pieces(nft: Seen) -> None:
    """Packets come with the last; and the next time all is one transaction."""
    backend = NftablesBackend(nft, RANGES)
    backend.resync(EVERYTHING)
    assert len(nft.seen) > 4
    assert max(count for count, _ in nft.seen) <= 16
    assert not any(chains for _, chains in nft.seen)
    assert whole(nft) == [20, 40]
    nft.seen.clear()
    backend.resync(EVERYTHING)
    assert len(nft.seen) == 1
    assert whole(nft) == [20, 40]


def test_after_a_piece_that_is_refused_all_is_one_transaction(nft: Seen) -> None:
    """In place of what was begun."""
    nft.refuses = 3
    NftablesBackend(nft, RANGES).resync(EVERYTHING)
    assert len(nft.seen) == 4
    assert whole(nft) == [20, 40]


def test_who_finds_a_table_half_filled_finishes_it(nft: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one before was killed between two pieces."""
    plain = nft.commit

    def killed(transaction: Transaction) -> None:
        plain(transaction)
        if len(nft.seen) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(nft, "commit", killed)
    with pytest.raises(KeyboardInterrupt):
        NftablesBackend(nft, RANGES).resync(EVERYTHING)
    NftablesBackend(nft, RANGES).resync(EVERYTHING)
    assert whole(nft) == [20, 40]

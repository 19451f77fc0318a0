"""The nftables backend: frontends against the shadow of what is in force, one transaction a change.

    apply     frontend before, frontend now ─► elements to delete, to add ─► one batch
    resync    every map flushed and filled, every chain too, what is left over deleted ─► one batch
              where there is no table yet, its maps first, a piece at a time: packets come with the chains

A restart adopts the table: packets see the old elements until the batch is committed and the new ones after, so they
see only what differs. The difference isn't computed from a reading, because the kernel can't list a hash reliably while
it resizes it, and one element overlooked would answer for ever. Chains of classes nobody uses any more stay until a
resync; a packet may be on its way to them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from itertools import islice

from kubesvc.kernel.nft.expressions import native32
from kubesvc.kernel.nft.objects import Chain, Table
from kubesvc.kernel.nft.transaction import (
    AddChain,
    AddElements,
    AddMap,
    AddTable,
    DeleteChain,
    DeleteElements,
    DeleteTable,
    FillChain,
    FlushMap,
    Nft,
    NftError,
    Transaction,
)
from kubesvc.proxy import maps, ruleset
from kubesvc.proxy.backend import BackendError, Changes, Frontend, Ranges
from kubesvc.proxy.layout import LAYOUT, TABLE
from kubesvc.proxy.maps import CLASSES, DATA_MAPS, DYNAMIC_MAPS, Elements

log = logging.getLogger(__name__)

_UNCHANGED = object()
_PIECE = 16_384  # elements: while anybody listens to nftables, the kernel holds 8 KB for each until they are committed


class NftablesBackend:
    """`Backend` over `nft`, in the network namespace that one lives in."""

    def __init__(self, nft: Nft, ranges: Ranges) -> None:
        self._nft = nft
        self._ranges = ranges
        self._frontends: dict[bytes, Frontend] = {}  # key -> what is in force
        self._classes: set[int] = set()

    def close(self) -> None:
        self._nft.close()

    def know(self, ranges: Ranges) -> None:
        self._ranges = ranges

    def apply(self, changes: Changes, revision: str) -> None:
        gone, come = maps.no_elements(), maps.no_elements()
        missing: set[int] = set()
        for key, frontend in changes.frontends.items():
            before = self._frontends.get(key)
            if before is not None:
                maps.place(before, gone)
            if frontend is not None:
                maps.place(frontend, come)
                missing.update(maps.classes_of(frontend))
        for address, present in changes.service_ips.items():
            maps.place_service_ip(address, come if present else gone)
        for address, present in changes.local_endpoints.items():
            maps.place_hairpin(address, come if present else gone)
        missing -= self._classes
        transaction = Transaction()
        _add_classes(transaction, missing, self._classes)
        _replace(transaction, gone, come)
        self._commit(transaction, changes.frontends)
        self._classes |= missing
        for key, frontend in changes.frontends.items():
            if frontend is None:
                self._frontends.pop(key, None)
            else:
                self._frontends[key] = frontend

    def resync(self, everything: Changes) -> None:
        wanted = maps.no_elements()
        frontends = {k: f for k, f in everything.frontends.items() if f is not None}
        for frontend in frontends.values():
            maps.place(frontend, wanted)
        for address in everything.service_ips:
            maps.place_service_ip(address, wanted)
        for address in everything.local_endpoints:
            maps.place_hairpin(address, wanted)
        classes = {number for f in frontends.values() for number in maps.classes_of(f)}
        try:
            transactions = self._all_again(wanted, classes)
        except (NftError, OSError) as error:
            raise BackendError(f"table inet {TABLE} can't be read: {error}") from error
        try:
            for transaction in transactions:
                self._commit(transaction, frontends)
        except BackendError as error:
            if not isinstance(error.__cause__, NftError):
                raise
            log.warning("table inet %s can't be taken over, so it is replaced: %s", TABLE, error)
            for transaction in self._all_again(wanted, classes, replace=True):
                self._commit(transaction, frontends)
        self._frontends = frontends
        self._classes = classes

    def _blame(self, error: NftError, frontends: Mapping[bytes, Frontend | None]) -> str:
        """The Service whose element was refused, as a message begins; "" where it isn't one's."""
        length = 24 if error.map_name.endswith("6") else 12
        key = error.key[:length]
        found = frontends.get(key) or self._frontends.get(key)
        if found is None and key:
            everyone = (*frontends.values(), *self._frontends.values())
            found = next((f for f in everyone if f is not None and f.key.startswith(key)), None)
        return "" if found is None else f"Service {'/'.join(found.service)}: "

    def _all_again(self, wanted: Elements, classes: set[int], *, replace: bool = False) -> list[Transaction]:
        """One, where packets may be on their way through the table."""
        transactions: list[Transaction] = []
        transaction = Transaction()
        comment = self._nft.comment(TABLE)
        adopt = comment == LAYOUT and not replace
        if comment is not None and not adopt:
            transaction.add(DeleteTable(TABLE))
        transaction.add(AddTable(Table(TABLE, LAYOUT)))
        for map_ in (*DATA_MAPS.values(), CLASSES, *DYNAMIC_MAPS):
            transaction.add(AddMap(TABLE, map_))
            if adopt and not map_.dynamic:
                transaction.add(FlushMap(TABLE, map_))
        for name, elements in wanted.items():
            for piece in _pieces(elements):
                transaction.add(AddElements(TABLE, DATA_MAPS[name], piece))
                if comment is None:
                    transactions.append(transaction)
                    transaction = Transaction()
        chains = [*ruleset.constant_chains(self._ranges), *ruleset.memories(classes).values()]
        chains += [ruleset.pick(number) for number in sorted(classes)]
        for chain in chains:
            transaction.add(AddChain(TABLE, chain))
        for chain in chains:
            transaction.add(FillChain(TABLE, chain))
        _name_classes(transaction, classes)
        if adopt:
            known = {chain.name for chain in chains}
            left = [name for name in self._nft.chains(TABLE) if name not in known]
            for name in left:
                transaction.add(FillChain(TABLE, Chain(name, ())))  # they may jump to each other
            for name in left:
                transaction.add(DeleteChain(TABLE, name))
        return [*transactions, transaction]

    def _commit(self, transaction: Transaction, frontends: Mapping[bytes, Frontend | None]) -> None:
        if not transaction:
            return
        try:
            self._nft.commit(transaction)
        except NftError as error:
            raise BackendError(f"{self._blame(error, frontends)}{error}") from error
        except OSError as error:
            raise BackendError(str(error)) from error


def _pieces(elements: Mapping[bytes, bytes]) -> Iterator[dict[bytes, bytes]]:
    left = iter(elements.items())
    while piece := dict(islice(left, _PIECE)):
        yield piece


def _add_classes(transaction: Transaction, numbers: set[int], known: set[int]) -> None:
    chains = [ruleset.pick(number) for number in sorted(numbers)]
    if memories := ruleset.memories(numbers):
        there = ruleset.memories(known)
        chains = [*(chain for name, chain in memories.items() if name not in there), *chains]
    for chain in chains:
        transaction.add(AddChain(TABLE, chain))
    for chain in chains:
        transaction.add(FillChain(TABLE, chain))
    _name_classes(transaction, numbers)


def _name_classes(transaction: Transaction, numbers: set[int]) -> None:
    if numbers:
        named = {native32(number): ruleset.pick_name(number).encode() for number in sorted(numbers)}
        transaction.add(AddElements(TABLE, CLASSES, named))


def _replace(transaction: Transaction, gone: Elements, come: Elements) -> None:
    """Delete and add, leaving alone what is the same before and after."""
    for name, map_ in DATA_MAPS.items():
        before, after = gone[name], come[name]
        if before and after:
            for key in [k for k in before if after.get(k, _UNCHANGED) == before[k]]:
                del before[key], after[key]
        if before:
            transaction.add(DeleteElements(TABLE, map_, before.keys()))
        if after:
            transaction.add(AddElements(TABLE, map_, after))

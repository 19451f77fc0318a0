"""nftables in memory: commits transactions by the kernel's rules, and runs a packet through the chains (`trace`)."""

from __future__ import annotations

import errno
import os
from copy import deepcopy
from math import inf

from kubesvc.kernel.nft import expressions as nft
from kubesvc.kernel.nft.objects import Chain, Map
from kubesvc.kernel.nft.trace import Packet, Run, State
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
    NftError,
    Operation,
    Transaction,
)


class MemoryNft:
    """`Nft` without a kernel. `refuse_next` makes the next commit fail, as a kernel short of memory would; `now` is
    the clock, in seconds, that time-outs go by."""

    def __init__(self) -> None:
        self._tables: dict[str, State] = {}
        self.refuse_next = 0  # an errno
        self.commits = 0
        self.now = 0.0

    def close(self) -> None:
        return None

    # ── Nft ──

    def commit(self, transaction: Transaction) -> None:
        before = deepcopy(self._tables)
        try:
            for operation in transaction.operations:
                self._do(operation)
            self._check_references()
            if number := self.refuse_next:
                self.refuse_next = 0
                raise NftError(f"nftables transaction: {os.strerror(number)}")
        except NftError:
            self._tables = before
            raise
        self.commits += 1

    def comment(self, table: str) -> str | None:
        found = self._tables.get(table)
        return None if found is None else found.comment

    def chains(self, table: str) -> list[str]:
        return list(self._tables[table].chains) if table in self._tables else []

    def elements(self, table: str, map_: Map) -> dict[bytes, bytes]:
        found = self._tables.get(table)
        if found is None or map_.name not in found.maps:
            raise NftError(f"list {map_.name} of table inet {table}: {os.strerror(errno.ENOENT)}")
        return {k: v for k, v in found.elements[map_.name].items() if found.expiry[map_.name].get(k, inf) > self.now}

    def _do(self, operation: Operation) -> None:
        match operation:
            case AddTable(made):
                self._tables.setdefault(made.name, State(made.comment))
                return
            case DeleteTable(name):
                if self._tables.pop(name, None) is None:
                    raise _refused(operation, errno.ENOENT)
                return
        found = self._tables.get(operation.table)
        if found is None:
            raise _refused(operation, errno.ENOENT)
        match operation:
            case AddMap(_, map_):
                found.maps.setdefault(map_.name, map_)
                found.elements.setdefault(map_.name, {})
                found.expiry.setdefault(map_.name, {})
            case FlushMap(_, map_):
                found.elements[map_.name].clear()
                found.expiry[map_.name].clear()
            case AddChain(_, chain):
                found.chains.setdefault(chain.name, Chain(chain.name, (), chain.hook))
            case FillChain(_, chain):
                if chain.name not in found.chains:
                    raise _refused(operation, errno.ENOENT)
                found.chains[chain.name] = chain
            case DeleteChain(_, name):
                if found.chains.pop(name, None) is None:
                    raise _refused(operation, errno.ENOENT)
                if name in found.targets():
                    raise _refused(operation, errno.EBUSY)
            case AddElements(_, map_, added):
                held = found.elements[map_.name]
                for key, data in added.items():
                    if len(key) != map_.key_length * (1 + map_.interval) or (
                        not map_.verdicts and len(data) != map_.data_length
                    ):
                        raise _refused(operation, errno.EINVAL)
                    if held.setdefault(key, data) != data:
                        raise _refused(operation, errno.EEXIST)
            case DeleteElements(_, map_, keys):
                for key in keys:
                    if found.elements[map_.name].pop(key, None) is None:
                        raise _refused(operation, errno.ENOENT)

    def _check_references(self) -> None:
        """Rules and verdict maps may name only chains and maps that exist."""
        for table in self._tables.values():
            maps = {e.set for e in table.expressions() if isinstance(e, nft.Lookup | nft.DynamicSet)}
            if not table.targets() <= table.chains.keys() or not maps <= table.maps.keys():
                raise NftError(f"nftables transaction: {os.strerror(errno.EBUSY)}: a chain or map in use is missing")

    # ── tracing ──

    def run(self, hook: str, packet: Packet, draw: int) -> None:
        """Send `packet` through every base chain at `hook`. Random numbers come out as `draw`, modulo what is asked."""
        based = [
            (chain.hook.priority, table, chain)
            for table in self._tables.values()
            for chain in table.chains.values()
            if chain.hook is not None and chain.hook.name == hook
        ]
        for _, table, chain in sorted(based, key=lambda b: b[0]):
            packet.verdict = ""
            Run(table, packet, draw, self.now).chain(chain)
            if packet.verdict in ("drop", "reject"):
                return


def _refused(operation: Operation, number: int) -> NftError:
    return NftError(f"{str(operation)[:200]}: {os.strerror(number)}")

"""The kernel's nftables in the namespace the connection was made in: one datagram a transaction, synchronous.

    BATCH_BEGIN  message …  message(ACK)  BATCH_END

The kernel applies a batch inside `send`; a refusal of any message undoes all of it. Only the last message asks for an
acknowledgement: refusals always answer.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from contextlib import nullcontext

from kubesvc.kernel.netlink import (
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    NetlinkError,
    NetlinkSocket,
    attributes,
    message,
    text,
)
from kubesvc.kernel.nft import elements
from kubesvc.kernel.nft.monitor import Monitor
from kubesvc.kernel.nft.objects import Map
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

_NETLINK_NETFILTER = 12
_NFNL_SUBSYS_NFTABLES = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NFPROTO_INET = 1
# enum nf_tables_msg_types
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN, _DELCHAIN, _NEWRULE, _, _DELRULE = range(9)
_NEWSET, _, _, _NEWSETELEM, _GETSETELEM, _DELSETELEM = range(9, 15)

_LARGE = 4096  # elements

_GENERIC = struct.pack("=BBH", _NFPROTO_INET, 0, 0)  # nfgenmsg: family, version, res_id
_BATCH = struct.pack(">BBH", 0, 0, _NFNL_SUBSYS_NFTABLES)


class Connection:
    """`Nft` over netlink. Not to be shared between threads."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(_NETLINK_NETFILTER)
        self.monitor: Monitor | None = None
        """Paused while a large transaction is committed."""

    @property
    def port(self) -> int:
        """The sender that notifications of this connection's changes name."""
        return self._netlink.port

    def close(self) -> None:
        self._netlink.close()

    def commit(self, transaction: Transaction) -> None:
        messages: list[tuple[int, int, bytes]] = []
        owners: list[Operation] = []
        maps: dict[str, int] = {}
        for operation in transaction.operations:
            for found in _messages(operation, maps):
                messages.append(found)
                owners.append(operation)
        if not messages:
            return
        parts = [message(_BATCH_BEGIN, NLM_F_REQUEST, 0, _BATCH)]
        for sequence, (kind, flags, body) in enumerate(messages, 1):
            asked = NLM_F_REQUEST | flags | (NLM_F_ACK if sequence == len(messages) else 0)
            framed = message(_NFNL_SUBSYS_NFTABLES << 8 | kind, asked, sequence, _GENERIC + body)
            parts.append(framed)
        parts.append(message(_BATCH_END, NLM_F_REQUEST, len(messages) + 1, _BATCH))
        with self.monitor.paused() if self.monitor and _is_large(transaction) else nullcontext():
            refused = self._netlink.request(b"".join(parts))
        if refused:
            map_name, key = _element(refused[0], messages, owners)
            raise NftError(_describe(refused, owners), map_name=map_name, key=key) from refused[0]

    def comment(self, table: str) -> str | None:
        # Tables are few: listing them makes a missing one no error.
        for found in self._dump(_GETTABLE, b""):
            if found.get(1, b"").rstrip(b"\0").decode() == table:
                user_data = found.get(6, b"")
                if len(user_data) < 2 or user_data[0] != 0:
                    return ""
                return user_data[2 : 2 + user_data[1]].rstrip(b"\0").decode()
        return None

    def chains(self, table: str) -> list[str]:
        return [
            found[3].rstrip(b"\0").decode()
            for found in self._dump(_GETCHAIN, text(1, table))
            if found[1].rstrip(b"\0").decode() == table
        ]

    def elements(self, table: str, map_: Map) -> dict[bytes, bytes]:
        # A dump goes on by counting what it has shown, and a hash that the kernel is just then resizing changes its
        # order: elements are left out (12 of 100, right after inserting 100,000) or repeated. So: until two agree.
        before = self._read(table, map_)
        while (found := self._read(table, map_)) != before:
            before = found
        return found

    def count(self, table: str, map_: Map) -> int:
        """How many elements a map has, nearly: others may change it meanwhile. Raises NftError when it is missing."""
        return elements.count(self._bodies(table, map_))

    def _read(self, table: str, map_: Map) -> dict[bytes, bytes]:
        return elements.decode(map_, self._bodies(table, map_))

    def _bodies(self, table: str, map_: Map) -> Iterator[bytes]:
        kind = _NFNL_SUBSYS_NFTABLES << 8 | _GETSETELEM
        try:
            bodies = self._netlink.dump(kind, _GENERIC + elements.whole_body(table, map_))
        except NetlinkError as error:
            raise NftError(f"list {map_.name} of table inet {table}: {error}") from error
        return (body[4:] for body in bodies)

    def _dump(self, kind: int, body: bytes) -> Iterator[dict[int, bytes]]:
        for found in self._netlink.dump(_NFNL_SUBSYS_NFTABLES << 8 | kind, _GENERIC + body):
            if found[0] == _NFPROTO_INET:
                yield attributes(found, 4)


def _is_large(transaction: Transaction) -> bool:
    count = 0
    for operation in transaction.operations:
        match operation:
            case AddElements(elements=found) | DeleteElements(keys=found):
                count += len(found)
            case FlushMap():
                return True
    return count > _LARGE


def _describe(refused: list[NetlinkError], owners: list[Operation]) -> str:
    first = refused[0]
    if 1 <= first.sequence <= len(owners):
        line = str(owners[first.sequence - 1])
        return f"{line if len(line) <= 200 else line[:200] + '…'}: {first}"
    hint = "; does this process have CAP_NET_ADMIN in its network namespace?" if first.errno == errno.EPERM else ""
    return f"nftables transaction: {first}{hint}"


def _element(
    refused: NetlinkError, messages: list[tuple[int, int, bytes]], owners: list[Operation]
) -> tuple[str, bytes]:
    """The map and the key of the element refused; empty where it wasn't one."""
    if not 1 <= refused.sequence <= len(owners) or refused.offset == 0:
        return "", b""
    match owners[refused.sequence - 1]:
        case AddElements(_, map_) | DeleteElements(_, map_):
            # the offset counts from the message's header (16 bytes) and nfgenmsg (4); the key is three attributes deep
            start = refused.offset - 20 + 12
            return map_.name, messages[refused.sequence - 1][2][start : start + map_.key_length]
    return "", b""


def _messages(operation: Operation, maps: dict[str, int]) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and body of each message. `maps`: name -> number of maps made in this batch."""
    match operation:
        case AddElements(table, map_, added):
            for chunk in elements.encode_additions(map_, added):
                yield _NEWSETELEM, NLM_F_CREATE, elements.list_body(table, map_, chunk, maps.get(map_.name, 0))
        case DeleteElements(table, map_, keys):
            for chunk in elements.encode_deletions(map_, keys):
                yield _DELSETELEM, 0, elements.list_body(table, map_, chunk)
        case AddTable(made):
            yield _NEWTABLE, NLM_F_CREATE, made.body()
        case DeleteTable(name):
            yield _DELTABLE, 0, text(1, name)
        case AddMap(table, map_):
            maps[map_.name] = len(maps) + 1
            yield _NEWSET, NLM_F_CREATE, map_.body(table, maps[map_.name])
        case FlushMap(table, map_):
            yield _DELSETELEM, 0, elements.whole_body(table, map_)
        case AddChain(table, chain):
            yield _NEWCHAIN, NLM_F_CREATE, chain.body(table)
        case FillChain(table, chain):
            yield _DELRULE, 0, text(1, table) + text(2, chain.name)
            for rule in chain.rules:
                yield _NEWRULE, NLM_F_CREATE | NLM_F_APPEND, rule.body(table, chain.name)
        case DeleteChain(table, name):
            yield _DELRULE, 0, text(1, table) + text(2, name)
            yield _DELCHAIN, 0, text(1, table) + text(3, name)

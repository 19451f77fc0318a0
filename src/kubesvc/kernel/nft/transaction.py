"""A transaction: changes to tables that the kernel makes all at once, or not at all. It can print itself.

The seam `Nft` is what a transaction is committed to, and what a backend reads its own table back from. Adding what is
there already is fine for tables, chains and maps; an element that is there with other data, or one to delete that is
missing, refuses the whole transaction: then someone else has been at the table.

    NftError    the transaction was refused; nothing has changed. Says which operation, and the kernel's reason
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import msgspec

from kubesvc.kernel.nft.objects import Chain, Map, Table


class NftError(Exception):
    """`map_name` and `key` say which element was refused, where it was one."""

    def __init__(self, message: str, *, map_name: str = "", key: bytes = b"") -> None:
        super().__init__(message)
        self.map_name, self.key = map_name, key


class AddTable(msgspec.Struct, frozen=True):
    table: Table

    def __str__(self) -> str:
        return f"add table inet {self.table.name}"


class DeleteTable(msgspec.Struct, frozen=True):
    name: str

    def __str__(self) -> str:
        return f"delete table inet {self.name}"


class AddMap(msgspec.Struct, frozen=True):
    table: str
    map: Map

    def __str__(self) -> str:
        types = " . ".join(t.name for t in self.map.key)
        if self.map.data:
            types += " : " + " . ".join(t.name for t in self.map.data)
        more = " flags interval;" if self.map.interval else ""
        if self.map.dynamic:
            more = f" size {self.map.dynamic}; flags timeout,dynamic;"
        return f"add {'map' if self.map.data else 'set'} inet {self.table} {self.map.name} {{ type {types};{more} }}"


class AddChain(msgspec.Struct, frozen=True):
    """The chain alone: so that rules can jump to chains that are filled later."""

    table: str
    chain: Chain

    def __str__(self) -> str:
        hook = self.chain.hook
        where = f" {{ type {hook.type} hook {hook.name} priority {hook.priority}; }}" if hook else ""
        return f"add chain inet {self.table} {self.chain.name}{where}"


class FillChain(msgspec.Struct, frozen=True):
    """Flush the chain and add its rules."""

    table: str
    chain: Chain

    def __str__(self) -> str:
        name = f"inet {self.table} {self.chain.name}"
        return "\n".join([f"flush chain {name}", *(f"add rule {name} {rule.text}" for rule in self.chain.rules)])


class DeleteChain(msgspec.Struct, frozen=True):
    """Flush the chain and delete it."""

    table: str
    name: str

    def __str__(self) -> str:
        return f"flush chain inet {self.table} {self.name}\ndelete chain inet {self.table} {self.name}"


class FlushMap(msgspec.Struct, frozen=True):
    """Delete every element."""

    table: str
    map: Map

    def __str__(self) -> str:
        return f"flush {'map' if self.map.data else 'set'} inet {self.table} {self.map.name}"


class AddElements(msgspec.Struct, frozen=True):
    table: str
    map: Map
    elements: Mapping[bytes, bytes]

    def __str__(self) -> str:
        listed = ", ".join(f"{k.hex()} : {v.hex()}" if v else k.hex() for k, v in self.elements.items())
        return f"add element inet {self.table} {self.map.name} {{ {listed} }}"


class DeleteElements(msgspec.Struct, frozen=True):
    table: str
    map: Map
    keys: Collection[bytes]

    def __str__(self) -> str:
        listed = ", ".join(k.hex() for k in self.keys)
        return f"delete element inet {self.table} {self.map.name} {{ {listed} }}"


Operation = (
    AddTable | DeleteTable | AddMap | FlushMap | AddChain | FillChain | DeleteChain | AddElements | DeleteElements
)


class Transaction:
    """Operations in order. `str()` gives them as an nft script, elements in hex."""

    __slots__ = ("operations",)

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def add(self, operation: Operation) -> None:
        self.operations.append(operation)

    def __bool__(self) -> bool:
        return bool(self.operations)

    def __str__(self) -> str:
        return "\n".join(str(o) for o in self.operations)


class Nft(Protocol):
    """A kernel's nftables in one namespace, or a likeness of it."""

    def commit(self, transaction: Transaction) -> None:
        """All of it or nothing. Raises NftError."""
        ...

    def comment(self, table: str) -> str | None:
        """The table's comment, "" when it has none; None when there is no such table."""
        ...

    def chains(self, table: str) -> list[str]:
        """The names of the table's chains."""
        ...

    def elements(self, table: str, map_: Map) -> dict[bytes, bytes]:
        """Key -> data of a map of the table; data is b"" in a set. Raises NftError when it is missing."""
        ...

    def close(self) -> None: ...

"""Which Service holds which addresses of the pools. Pure, and it knows no API.

The state is rebuilt from the Services' own status, so that an address survives every restart; nothing else is stored.
An address that a Service moves away from stays held until `settle` says that the move is published: otherwise another
Service could be seen with it while the first still shows it.

    assign:  what is asked for by value ─► what it has and may keep ─► company under its sharing key ─► the lowest free

Follows MetalLB's internal/allocator. One difference: a Service of two families may have its addresses from two pools.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from kubesvc.api.balancing import Address
from kubesvc.loadbalancer.providers.free import Free
from kubesvc.loadbalancer.providers.pools import Pool, is_buggy
from kubesvc.loadbalancer.providers.wishes import Reason, Refusal, Sharing, Wish

Key = tuple[str, str]  # namespace, name
Admits = Callable[[Pool], bool]
"""Whether the Service in question may have an address of a pool."""


class Allocator:
    """Addresses of some pools and their holders. `pools` is in the order they are tried in."""

    def __init__(self, pools: Sequence[Pool] = ()) -> None:
        self._pools: tuple[Pool, ...] = ()
        self._free: dict[tuple[str, int], Free] = {}  # (pool, IP version) -> its free addresses
        self._current: dict[Key, tuple[Address, ...]] = {}  # service -> the addresses it has
        self._leaving: dict[Key, set[Address]] = {}  # service -> addresses it moved away from, still held
        self._holders: dict[Address, dict[Key, Sharing | None]] = {}  # address -> services, current and leaving ones
        self._shared: dict[str, set[Address]] = defaultdict(set)  # sharing key -> addresses held under it
        self.configure(pools)

    @property
    def pools(self) -> tuple[Pool, ...]:
        return self._pools

    def configure(self, pools: Sequence[Pool]) -> None:
        """Use these pools from now on. Nobody loses an address here: `assign` looks at each Service again."""
        self._pools = tuple(pools)
        self._free = {
            (pool.name, version): Free([r for r in pool.ranges if r[0].version == version])
            for pool in pools
            for version in (4, 6)
        }

    def pool_of(self, address: Address) -> Pool | None:
        return next((pool for pool in self._pools if address in pool), None)

    def current(self, key: Key) -> tuple[Address, ...]:
        return self._current.get(key, ())

    def assigned(self, pool: Pool, version: int) -> int:
        """How many addresses of a family are held in the pool."""
        return sum(1 for address in self._holders if address.version == version and address in pool)

    def adopt(self, key: Key, addresses: Iterable[Address], sharing: Sharing | None = None) -> list[Address]:
        """Hold what the service's status shows; returns what can't be, as it is another's or of no pool (any more)."""
        lost = [a for a in addresses if self.pool_of(a) is None or self._conflict(key, a, sharing)]
        self._take(key, tuple(a for a in addresses if a not in lost), sharing)
        return lost

    def assign(self, key: Key, wish: Wish, admits: Admits = lambda _: True) -> tuple[Address, ...] | Refusal:
        """The service's addresses. A refusal of an address asked for by value changes nothing; one for want of a free
        address only this: what the service may not keep, it is leaving."""
        chosen: dict[int, Address] = {}  # IP version -> address
        for address in wish.addresses:
            if refusal := self._refuse(key, address, wish, admits):
                return refusal
            chosen[address.version] = address
        for address in self._current.get(key, ()):
            if address.version in wish.families and address.version not in chosen and self._keeps(
                key, address, wish, admits
            ):  # fmt: skip
                chosen[address.version] = address
        missing = [version for version in wish.families if version not in chosen]
        if missing:
            found = self._choose(key, missing, wish, admits)
            if isinstance(found, Refusal):
                if not chosen or wish.all_families:
                    self._take(key, tuple(a for a in self._current.get(key, ()) if a in chosen.values()), wish.sharing)
                    return found
            else:
                chosen |= found
        addresses = tuple(chosen[version] for version in wish.families if version in chosen)
        self._take(key, addresses, wish.sharing)
        return addresses

    def settle(self, key: Key) -> list[Address]:
        """The service shows its current addresses and no other: free those it moved away from, and return them."""
        return self._let_go(key, self._leaving.pop(key, set()))

    def release(self, key: Key) -> list[Address]:
        """Free all that the service holds, and return it."""
        held = self._leaving.pop(key, set()) | set(self._current.pop(key, ()))
        return self._let_go(key, held)

    # ── choosing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _refuse(self, key: Key, address: Address, wish: Wish, admits: Admits) -> Refusal | None:
        """Why the service can't have this address."""
        pool = self.pool_of(address)
        if pool is None:
            listed = "; ".join(map(str, self._pools)) or "there is none"
            return Refusal(
                Reason.ADDRESS_OUTSIDE_POOL, f"{address} is in no pool ({listed}); ask for one that is, or for none"
            )
        if wish.pool and pool.name != wish.pool:
            return Refusal(
                Reason.CONFLICTING_REQUEST, f"{address} is in pool {pool.name}, and {wish.pool} is asked for"
            )
        if not admits(pool):
            return Refusal(Reason.POOL_NOT_ALLOWED, f"{address} is in pool {pool.name}, which isn't for this Service")
        if conflict := self._conflict(key, address, wish.sharing):
            return Refusal(Reason.ADDRESS_IN_USE, f"{address} is held by Service {conflict}")
        return None

    def _keeps(self, key: Key, address: Address, wish: Wish, admits: Admits) -> bool:
        pool = self.pool_of(address)
        return (
            pool is not None
            and wish.pool in ("", pool.name)
            and admits(pool)
            and not self._conflict(key, address, wish.sharing)
        )

    def _candidates(self, wish: Wish, admits: Admits) -> list[Pool] | Refusal:
        if wish.pool:
            named = next((pool for pool in self._pools if pool.name == wish.pool), None)
            if named is None:
                known = ", ".join(pool.name for pool in self._pools) or "none"
                return Refusal(Reason.POOL_NOT_FOUND, f"there is no pool {wish.pool!r}; there are: {known}")
            if not admits(named):
                return Refusal(Reason.POOL_NOT_ALLOWED, f"pool {named.name} isn't for this Service")
            return [named]
        if not self._pools:
            return Refusal(Reason.NO_POOL, "there is no pool of addresses; create an IPAddressPool")
        found = [pool for pool in self._pools if pool.auto_assign and admits(pool)]
        return found or Refusal(
            Reason.POOL_NOT_ALLOWED, "no pool that assigns automatically is for this Service; name one in an annotation"
        )

    def _choose(self, key: Key, versions: Sequence[int], wish: Wish, admits: Admits) -> dict[int, Address] | Refusal:
        """An address of each version, of one pool where one has them all; of some versions, if all needn't be."""
        pools = self._candidates(wish, admits)
        if isinstance(pools, Refusal):
            return pools
        best: dict[int, Address] = {}
        for pool in pools:
            found = {v: a for v in versions if (a := self._lowest(key, pool, v, wish.sharing)) is not None}
            if len(found) == len(versions):
                return found
            best = found | best
        lacking = [version for version in versions if version not in best]
        return self._lacking(lacking, pools) if lacking and (wish.all_families or not best) else best

    def _lowest(self, key: Key, pool: Pool, version: int, sharing: Sharing | None) -> Address | None:
        if sharing is not None:
            company = sorted(a for a in self._shared[sharing.key] if a.version == version and a in pool)
            for address in company:
                if not self._conflict(key, address, sharing):
                    return address
        return self._free[pool.name, version].lowest(
            lambda a: a not in self._holders and not (pool.avoid_buggy and is_buggy(a))
        )

    def _lacking(self, versions: Sequence[int], pools: Sequence[Pool]) -> Refusal:
        for version in versions:
            if not any(pool.size(version) for pool in pools):
                return Refusal(
                    Reason.FAMILY_NOT_SERVED,
                    f"no pool for this Service has IPv{version} addresses: {'; '.join(map(str, pools))}",
                )
        version = versions[0]
        listed = "; ".join(str(pool) for pool in pools if pool.size(version))
        size = sum(pool.size(version) for pool in pools)
        return Refusal(
            Reason.POOL_EXHAUSTED,
            f"the pool {listed} has no free IPv{version} address, {size} in use; free one or extend the pool",
        )

    def _conflict(self, key: Key, address: Address, sharing: Sharing | None) -> str:
        """Who else holds `address` and why it can't be shared with them; "" when it can be had."""
        for other, theirs in self._holders.get(address, {}).items():
            if other == key:
                continue
            if sharing is None:
                return "/".join(other)
            if why := sharing.conflict(theirs):
                return f"{'/'.join(other)}: {why}"
        return ""

    # ── bookkeeping ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, key: Key, addresses: tuple[Address, ...], sharing: Sharing | None) -> None:
        left = set(self._current.get(key, ())) - set(addresses)
        if left:
            self._leaving.setdefault(key, set()).update(left)
        self._leaving.get(key, set()).difference_update(addresses)
        self._current[key] = addresses
        for address in addresses:
            self._holders.setdefault(address, {})[key] = sharing
            if sharing is not None:
                self._shared[sharing.key].add(address)

    def _let_go(self, key: Key, addresses: set[Address]) -> list[Address]:
        for address in addresses:
            holders = self._holders.get(address, {})
            sharing = holders.pop(key, None)
            if not holders:
                self._holders.pop(address, None)
                if sharing is not None:
                    self._shared[sharing.key].discard(address)
                if (pool := self.pool_of(address)) is not None:
                    self._free[pool.name, address.version].give_back(address)
        return sorted(addresses, key=lambda a: (a.version, int(a)))

"""The subscription's public IPs: listed once for all Services, made and deleted for each."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from kubesvc.api.meta import JSON
from kubesvc.loadbalancer.provider import Refused
from kubesvc.loadbalancer.providers.azure import addresses
from kubesvc.loadbalancer.providers.azure.addresses import PublicIP
from kubesvc.loadbalancer.providers.azure.client import Client, CloudError, Stale
from kubesvc.loadbalancer.providers.azure.config import AzureConfig, group_of
from kubesvc.loadbalancer.providers.azure.wish import Wish


class PublicIPs:
    """What is known of them, for as long as it is fresh. All raise CloudError."""

    def __init__(self, client: Client, config: AzureConfig) -> None:
        self._client, self._config = client, config
        self._lock = asyncio.Lock()
        self._listed: dict[str, JSON] = {}  # id in lower case -> document
        self._read_at: float | None = None  # loop's clock
        self._wanted: dict[str, set[str]] = {}  # uid -> names of what was made for it, or is being made
        self._era = 0  # counts what we did ourselves: a list that was begun before knows less

    async def ensure(self, wish: Wish, family: str, cluster: str) -> JSON:
        """The one that `wish` is to have, made or changed where needed. Raises Refused."""
        try:
            chosen = await self._choose(wish, family, cluster)
        except Refused:
            self._forget()  # it may have been made a moment ago
            chosen = await self._choose(wish, family, cluster)
        self._wanted.setdefault(wish.uid, set()).add(chosen.name)
        if chosen.document is None:
            assert chosen.there is not None
            return chosen.there
        try:
            made = await self._client.put_public_ip(chosen.group, chosen.name, chosen.document, chosen.etag)
        except CloudError as error:
            self._forget()
            if isinstance(error, Stale):
                chosen = await self._choose(wish, family, cluster)
                if chosen.document is None and chosen.there is not None:
                    return chosen.there
            raise
        self._era += 1
        self._listed[made["id"].lower()] = made
        return made

    async def _choose(self, wish: Wish, family: str, cluster: str) -> PublicIP:
        return addresses.choose(wish, family, (await self._list()).values(), self._config, cluster)

    def settle(self, uid: str, names: Collection[str]) -> None:
        """`uid` has these and wants no others; none: it is gone."""
        if names:
            self._wanted[uid] = set(names)
        else:
            self._wanted.pop(uid, None)

    async def collect(self, cluster: str, living: Collection[str], used: set[str]) -> bool:
        """Delete what `addresses.garbage` finds; whether there was any."""
        found = addresses.garbage((await self._list()).values(), cluster, self._wanted, living, used)
        for ip in found:
            try:
                await self._client.delete_public_ip(group_of(ip["id"]), ip["name"])
            except CloudError:
                self._forget()
                raise
            self._era += 1
            self._listed.pop(ip["id"].lower(), None)
        return bool(found)

    def _forget(self) -> None:
        self._era += 1
        self._read_at = None

    async def _list(self) -> dict[str, JSON]:
        async with self._lock:
            now = asyncio.get_running_loop().time()
            while self._read_at is None or now - self._read_at > self._config.fresh:
                era = self._era
                listed = {ip["id"].lower(): ip for ip in await self._client.list_public_ips()}
                if era == self._era:
                    self._listed, self._read_at = listed, now
            return self._listed

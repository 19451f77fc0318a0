"""Node ports follow the node's addresses, where `node_port_addresses` asks for more than the primary ones."""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec.structs import replace

from kubesvc.kernel.addresses import AddressMonitor
from kubesvc.kernel.links import Links
from kubesvc.proxy.config import ProxyConfig, own_ips

log = logging.getLogger(__name__)


class Addresses:
    """Tells `moved` of the configuration with other addresses. Lives in the network namespace it was made in."""

    def __init__(self, config: ProxyConfig, moved: Callable[[ProxyConfig], None]) -> None:
        self._config, self._moved = config, moved
        self._links = Links()
        self._monitor = AddressMonitor()
        primary = {ip.version: ip for ip in reversed(config.node_ips)}  # version -> the first
        self._primary = tuple(primary[version] for version in sorted(primary))

    def close(self) -> None:
        self._links.close()
        self._monitor.close()

    async def run(self) -> None:
        while True:
            found = replace(self._config, node_ips=own_ips(self._primary, self._links.addresses()))
            if found.node_port_ips() != self._config.node_port_ips():
                log.info("node ports answer on %s now", ", ".join(map(str, found.node_port_ips())) or "no address")
                self._config = found
                self._moved(found)
            await self._monitor.changed()

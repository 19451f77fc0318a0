"""The balancers of a desk's cloud on disk: a directory, a file of JSON for each, replaced whole."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from kubesvc.loadbalancer.providers.desk.model import Balancer

log = logging.getLogger(__name__)


class Ledger:
    """`directory` is made by the first write."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def read(self) -> list[Balancer]:
        """Every balancer; a file that isn't one is left out, and the log says so."""
        found = []
        for path in sorted(self.directory.glob("*.json")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Balancer))
            except FileNotFoundError:
                continue
            except (OSError, msgspec.MsgspecError) as error:
                log.warning("%s can't be read: %s", path, error)
        return found

    def write(self, balancer: Balancer) -> None:
        """Raises OSError."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = self.directory / f"{balancer.uid}.new"
        part.write_bytes(msgspec.json.format(msgspec.json.encode(balancer), indent=2))
        part.replace(self.directory / f"{balancer.uid}.json")

    def remove(self, uid: str) -> bool:
        """Whether it was there. Raises OSError."""
        try:
            (self.directory / f"{uid}.json").unlink()
        except FileNotFoundError:
            return False
        return True

"""Who has an address and port. Pure.

Two Services may claim one (an external IP is whatever a user writes): the surer kind of claim wins, then the name, and
when the winner goes the next one takes over.
"""

from __future__ import annotations

from kubesvc.proxy.backend import Frontend, Kind

_RANK = {Kind.CLUSTER_IP: 0, Kind.LOAD_BALANCER: 1, Kind.EXTERNAL_IP: 2, Kind.NODE_PORT: 3}


class Claims:
    """Every Service's claims, and for each key the one that holds."""

    def __init__(self) -> None:
        self.winners: dict[bytes, Frontend] = {}  # frontend key -> who has it
        self._losers: dict[bytes, list[Frontend]] = {}  # frontend key -> who else claims it; nearly always empty

    def replace(
        self,
        owner: tuple[str, str],
        old: dict[bytes, Frontend],
        new: dict[bytes, Frontend],
        changes: dict[bytes, Frontend | None],
    ) -> None:
        """A Service's frontends were `old` and are `new`. What holds differently goes into `changes`."""
        for key, before in old.items():
            if key not in new:
                self._claim(key, owner, None, changes)
            elif before == new[key]:
                new[key] = before  # one object, not two equal ones
        for key, frontend in new.items():
            if old.get(key) is not frontend:
                self._claim(key, owner, frontend, changes)

    def _claim(
        self, key: bytes, owner: tuple[str, str], frontend: Frontend | None, changes: dict[bytes, Frontend | None]
    ) -> None:
        winner = self.winners.get(key)
        if key in self._losers or (winner is not None and winner.service != owner):
            frontend = self._contest(key, owner, frontend)
            if frontend == winner:
                return
        if frontend is not None:
            self.winners[key] = frontend
        elif winner is not None:
            del self.winners[key]
        changes[key] = frontend

    def _contest(self, key: bytes, owner: tuple[str, str], frontend: Frontend | None) -> Frontend | None:
        """Decide between several claims; returns who has the key now."""
        winner = self.winners.get(key)
        claims = [*self._losers.pop(key, []), *([] if winner is None else [winner])]
        claims = [c for c in claims if c.service != owner]
        if frontend is not None:
            claims.append(frontend)
        claims.sort(key=lambda c: (_RANK[c.kind], c.service))
        if len(claims) > 1:
            self._losers[key] = claims[1:]
        return claims[0] if claims else None

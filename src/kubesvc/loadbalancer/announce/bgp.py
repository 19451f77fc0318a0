"""This node's BGP: peers and routes from the world to BIRD, sessions from BIRD to the peers' status."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from contextlib import suppress
from ipaddress import ip_address

from kubesvc.api.balancing import BGPPeer, BGPSession
from kubesvc.api.core import Secret
from kubesvc.api.errors import ApiError
from kubesvc.api.meta import JSON
from kubesvc.api.nodes import Node
from kubesvc.api.registry import BGP_PEER, SECRET
from kubesvc.api.selectors import from_label_selector, matches
from kubesvc.client.events import WARNING, Recorder
from kubesvc.client.session import Session, Unreachable
from kubesvc.loadbalancer.announce import bird_state
from kubesvc.loadbalancer.announce.adverts import routes
from kubesvc.loadbalancer.announce.bird import Bird, BirdError
from kubesvc.loadbalancer.announce.bird_config import Neighbour, protocol, render
from kubesvc.loadbalancer.announce.ways import way_to
from kubesvc.loadbalancer.announce.world import World
from kubesvc.loadbalancer.config import AnnounceConfig
from kubesvc.loadbalancer.nodes import is_eligible

log = logging.getLogger(__name__)

COMPONENT = "kubesvc-bgp"
LOOK = 1.0  # seconds between two looks at BIRD's sessions
SETTLE = 0.02  # seconds in which changes are gathered: a reconfiguration of BIRD isn't free


class Speaker:
    """`wake` after each change; `run` does the rest. BIRD is started with the first peer."""

    def __init__(self, session: Session, config: AnnounceConfig, world: World, events: Recorder) -> None:
        self.healthy = True
        self._session, self._node_name, self._world, self._events = session, config.node_name, world, events
        self._bird = Bird(config.node_name, config.bird, config.runtime / config.node_name)
        self._dirty = asyncio.Event()
        self._told: set[str] = set()  # addresses that are announced now
        self._problems: dict[str, str] = {}  # peer -> what was wrong when last looked at
        self._passwords: dict[str, str] = {}  # peer -> the last that could be read

    def wake(self) -> None:
        self._dirty.set()

    async def run(self) -> None:
        """Until cancelled; BIRD ends with it."""
        try:
            while True:
                try:
                    await asyncio.wait_for(self._dirty.wait(), LOOK if self._mine() else None)
                    await asyncio.sleep(SETTLE)
                except TimeoutError:
                    pass
                self._dirty.clear()
                try:
                    await self._follow()
                except (ApiError, Unreachable) as error:
                    log.warning("BGP: %s; trying again", error)
                    self._dirty.set()
                    await asyncio.sleep(LOOK)
        finally:
            await asyncio.shield(self._bird.stop())

    async def _follow(self) -> None:
        node, mine = self._world.node, self._mine()
        shown: dict[str, BGPSession] = {}
        problems: dict[str, str] = {}  # peer -> what is wrong
        if not mine or node is None:
            await self._bird.stop()
        else:
            neighbours = await self._neighbours(mine, problems)
            try:
                await self._bird.apply(self._config(node, mine, neighbours), graceful=_graceful(mine))
                found = await self._bird.sessions()
            except BirdError as error:
                problems = {peer.name: str(error) for peer in mine} | problems
                found = await self._left()
            for peer in mine:
                one = found.get(protocol(peer.name), bird_state.Session("Down"))
                message = problems.get(peer.name, one.problem)
                shown[peer.name] = BGPSession(state=one.state, message=message, advertised=one.advertised)
        self._complain(mine, problems)
        await self._show(shown)

    async def _neighbours(self, mine: list[BGPPeer], problems: dict[str, str]) -> list[Neighbour]:
        """Those that can be spoken to. One whose password can't be read any more keeps the one it had."""
        found: list[Neighbour] = []
        for peer in mine:
            try:
                self._passwords[peer.name] = await self._password(peer)
            except BirdError as error:
                problems[peer.name] = str(error)
            if (password := self._passwords.get(peer.name)) is not None:
                found.append(Neighbour(peer.name, peer.spec, password, way_to(peer.spec.peer_address)))
        return found

    async def _left(self) -> dict[str, bird_state.Session]:
        """The sessions of a BIRD that goes on with what it was told before."""
        with suppress(BirdError):
            return await self._bird.sessions() if self._bird.running else {}
        return {}

    def _complain(self, mine: list[BGPPeer], problems: dict[str, str]) -> None:
        for peer in mine:
            problem = problems.get(peer.name, "")
            if problem and problem != self._problems.get(peer.name):
                log.error("BGP peer %s: %s", peer.name, problem)
                self._events.record(COMPONENT, BGP_PEER, peer, WARNING, "BGPFailed", problem)
        self._problems = problems

    def _mine(self) -> list[BGPPeer]:
        """The peers of this node."""
        node = self._world.node
        if node is None:
            return []
        return [
            peer
            for peer in self._world.peers.items.values()
            if not peer.spec.node_selectors
            or any(matches(from_label_selector(s), node.metadata.labels) for s in peer.spec.node_selectors)
        ]

    def _config(self, node: Node, mine: list[BGPPeer], neighbours: list[Neighbour]) -> str:
        """Raises BirdError."""
        serves = is_eligible(node) and self.healthy
        _, rules = self._world.rules()
        vips = self._world.vips(lambda vip: str(vip.address) in self._told) if serves else []
        held = [(str(v.address), v.pool) for v in vips if v.hosts is None or self._node_name in v.hosts]
        told = routes(rules, held, node.metadata.labels)
        self._told = {address for address, _ in held}
        return render(_router_id(node, mine), neighbours, told)

    async def _password(self, peer: BGPPeer) -> str:
        """Raises BirdError when its Secret can't be used."""
        reference = peer.spec.password_secret
        if reference is None:
            return peer.spec.password
        where = f"BGPPeer {peer.name}: Secret {reference.namespace}/{reference.name}"
        try:
            secret = await self._session.read(SECRET, Secret, reference.namespace, reference.name)
            password = base64.b64decode(secret.data["password"]).decode()
        except ApiError as error:
            raise BirdError(f"{where} can't be read: {error}") from error
        except (KeyError, binascii.Error, UnicodeDecodeError) as error:
            raise BirdError(f"{where} has no text under the key password") from error
        if any(c in '"\n\\' for c in password):
            raise BirdError(f"{where}: a password may not have quotes, backslashes or line breaks")
        return password

    async def _show(self, sessions: dict[str, BGPSession]) -> None:
        for peer in list(self._world.peers.items.values()):
            now, before = sessions.get(peer.name), peer.status.sessions.get(self._node_name)
            if now == before:
                continue
            shown: JSON | None = None
            if now is not None:
                shown = {"state": now.state, "message": now.message or None, "advertised": now.advertised}
                if before is None or now.state != before.state:
                    log.info("BGP peer %s is %s %s", peer.name, now.state, now.message)
            patch = {"status": {"sessions": {self._node_name: shown}}}
            await self._session.patch(BGP_PEER, "", peer.name, patch, subresource="status")


def _graceful(peers: list[BGPPeer]) -> bool:
    return any(peer.spec.enable_graceful_restart for peer in peers)


def _router_id(node: Node, peers: list[BGPPeer]) -> str:
    """A peer's, if one gives it; else the node's IPv4 address. Raises BirdError."""
    given = sorted(peer.spec.router_id for peer in peers if peer.spec.router_id)
    found = given or [a for a in node.internal_ips if ip_address(a).version == 4]
    if not found:
        raise BirdError(f"node {node.name} has no IPv4 address to be its router id: give one in a BGPPeer's routerID")
    return found[0]

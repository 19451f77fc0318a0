"""Attaching pods to a CNI network: the plugins are run, and what they did is kept, so that it can be undone.

    ADD   plugin 1 ──result──► plugin 2 ──result──► …      kept: CACHE/UID.json, before the first plugin runs
    DEL   … plugin 2, plugin 1, each told the kept result  also by `teardown`, and for pods that nobody knows any more

Plugins are run in the network namespace of the calling thread, the node's. An attachment is undone with the
configuration that it was made with, whatever the files say now.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from kubesvc.api.pods import Pod
from kubesvc.kernel import netns
from kubesvc.node.cni import network as cni
from kubesvc.node.cni.network import JSON, CniError, CniNetwork
from kubesvc.node.config import CniConfig
from kubesvc.node.ipam import Address, Network

log = logging.getLogger(__name__)

TIMEOUT = 120.0  # seconds a plugin gets
SUFFIXES = (".conflist", ".conf", ".json")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One attachment, or one that was begun: then there is no result."""

    network: JSON
    container: str
    namespace: str
    arguments: str
    told: JSON
    result: JSON | None = None


def load(config: CniConfig) -> CniNetwork:
    """The network of a file, or of the first file of a directory, by name. Raises CniError."""
    place = config.configuration
    if place.is_dir():
        files = sorted(path for path in place.iterdir() if path.suffix in SUFFIXES)
        if not files:
            raise CniError(f"{place} holds no CNI configuration: expected a file *{SUFFIXES[0]}")
        place = files[0]
    try:
        found = cni.parse(place.read_bytes(), str(place))
    except OSError as error:
        raise CniError(f"{place} can't be read: {error.strerror}") from error
    for plugin in found.plugins:
        for program in (plugin["type"], plugin.get("ipam", {}).get("type")):
            if program:
                _program(config.plugins, program)
    return found


def _program(places: Sequence[Path], name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join(map(str, places)))
    if found is None:
        where = " or ".join(map(str, places))
        raise CniError(
            f"CNI plugin {name!r} is not in {where}: apt install containernetworking-plugins, or see --cni-bin"
        )
    return found


class Attachments:
    """Of one node. Calls are synchronous; of one pod there is one at a time."""

    def __init__(self, config: CniConfig, pod_cidrs: Iterable[Network] = ()) -> None:
        self._config, self._pod_cidrs = config, tuple(pod_cidrs)

    @property
    def has_host_ports(self) -> bool:
        """Whether the plugins see to host ports themselves. Raises CniError."""
        return load(self._config).can("portMappings")

    def add(self, pod: Pod, namespace: Path) -> tuple[Address, ...]:
        """Attach a pod; its addresses. One that is attached, and as it should be, stays so. Raises CniError."""
        uid = pod.metadata.uid
        if (kept := self._kept(uid)) is not None:
            if kept.result is not None and kept.namespace == str(namespace) and self._checks(kept):
                return cni.addresses(kept.result)
            self.delete(uid)
        network = load(self._config)
        kept = _Kept(
            network=network.to_tree(),
            container=uid,
            namespace=str(namespace),
            arguments=cni.arguments(pod),
            told=cni.capabilities(pod, self._pod_cidrs),
        )
        self._keep(kept)
        try:
            result: JSON | None = None
            for plugin in network.plugins:
                output = self._run("ADD", plugin["type"], kept, cni.request(network, plugin, kept.told, result))
                result = _decode(plugin["type"], output)
            assert result is not None
            found = cni.addresses(result)
        except CniError:
            with suppress(CniError):
                self.delete(uid)
            raise
        self._keep(msgspec.structs.replace(kept, result=result))
        return found

    def delete(self, uid: str) -> None:
        """Undo what was done for a pod, if anything was. Raises CniError; then it is tried again later."""
        kept = self._kept(uid)
        if kept is None:
            return
        network = _network(kept)
        previous = None if network.version in cni.WITHOUT_CHECK else kept.result
        for plugin in reversed(network.plugins):
            self._run("DEL", plugin["type"], kept, cni.request(network, plugin, kept.told, previous))
        self._file(uid).unlink(missing_ok=True)

    def forget(self, but: Iterable[str] = ()) -> None:
        """Undo what was done for every pod that isn't named. What can't be is logged."""
        keeping = set(but)
        for file in sorted(self._config.cache.glob("*.json")):
            if file.stem not in keeping:
                try:
                    self.delete(file.stem)
                except CniError as error:
                    log.warning("pod %s can't be detached: %s", file.stem, error)

    def _checks(self, kept: _Kept) -> bool:
        """CHECK: whether an attachment is as it was made."""
        network = _network(kept)
        if not netns.is_namespace(Path(kept.namespace)):
            return False
        if network.disable_check or network.version in cni.WITHOUT_CHECK:
            return True
        try:
            for plugin in network.plugins:
                self._run("CHECK", plugin["type"], kept, cni.request(network, plugin, kept.told, kept.result))
        except CniError as error:
            log.warning("pod %s is attached anew: %s", kept.container, error)
            return False
        return True

    def _run(self, command: str, program: str, kept: _Kept, given: Mapping[str, object]) -> bytes:
        places = self._config.plugins
        namespace = kept.namespace if netns.is_namespace(Path(kept.namespace)) else ""  # gone, as after a reboot
        environment = {
            "PATH": _PATH,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": kept.container,
            "CNI_NETNS": namespace,
            "CNI_IFNAME": cni.INTERFACE,
            "CNI_ARGS": kept.arguments,
            "CNI_PATH": os.pathsep.join(map(str, places)),
        }
        try:
            ran = subprocess.run(
                [_program(places, program)],
                input=msgspec.json.encode(given),
                env=environment,
                capture_output=True,
                timeout=TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CniError(f"CNI plugin {program!r} can't {command}: {error}") from error
        if ran.returncode:
            said = cni.refusal(ran.stdout) or ran.stderr.decode(errors="replace").strip()
            raise CniError(f"CNI plugin {program!r} refused to {command}: {said or f'exit code {ran.returncode}'}")
        return ran.stdout

    # ── what is kept ──

    def _file(self, uid: str) -> Path:
        return self._config.cache / f"{uid}.json"

    def _keep(self, kept: _Kept) -> None:
        self._config.cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = self._file(kept.container).with_suffix(".new")
        part.write_bytes(msgspec.json.encode(kept))
        part.replace(self._file(kept.container))

    def _kept(self, uid: str) -> _Kept | None:
        try:
            return msgspec.json.decode(self._file(uid).read_bytes(), type=_Kept)
        except (OSError, msgspec.DecodeError):
            return None


def _network(kept: _Kept) -> CniNetwork:
    return cni.parse(msgspec.json.encode(kept.network), "what was kept")


def _decode(program: str, output: bytes) -> JSON:
    try:
        return msgspec.json.decode(output, type=dict[str, object])
    except msgspec.DecodeError as error:
        raise CniError(f"CNI plugin {program!r} answered with no JSON: {error}") from error

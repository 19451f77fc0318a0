"""Changing a box that runs: a request to its supervisor, over a socket only root can reach; and its answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

import msgspec

from kubesvc.api import labels, names
from kubesvc.api.errors import NotFound
from kubesvc.api.nodes import Node
from kubesvc.api.registry import NODE
from kubesvc.box.addons import forget_nodes
from kubesvc.box.definition import AddedNode, Box, name_flag
from kubesvc.box.errors import BoxError
from kubesvc.client import kubeconfig
from kubesvc.client.session import Unreachable

PATIENCE = 60.0  # seconds
LARGEST = 1 << 16


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of the two is said."""

    add: AddedNode | None = None
    remove: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    error: str = ""


def parse_label(text: str) -> tuple[str, str]:
    """KEY=VALUE. Raises BoxError."""
    key, equals, value = text.partition("=")
    if not equals or names.qualified_name(key) or names.label_value(value):
        raise BoxError(f"--label {text!r}: expected KEY=VALUE, such as disk=ssd")
    if labels.is_restricted(key):
        raise BoxError(
            f"--label {text!r}: no node gives itself labels of {labels.NODE_RESTRICTION}; use `kubectl label node`"
        )
    return key, value


def parse_zone(text: str) -> str:
    """A zone, the value of a label; "" is none. Raises BoxError."""
    if names.label_value(text):
        raise BoxError(f"--zone {text!r}: expected up to 63 letters, digits, '-', '_' and '.', such as eu-west-1a")
    return text


def listen(box: Box) -> socket.socket:
    """The supervisor's end."""
    path = box.run_path / "control"
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(8)
    return listener


def serve(listener: socket.socket, carry_out: Callable[[Request], None]) -> None:
    """Take one request and answer it; a BoxError of `carry_out` is the answer."""
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(2.0)
        try:
            request = msgspec.json.decode(connection.recv(LARGEST), type=Request)
            carry_out(request)
            answer = Answer()
        except (BoxError, msgspec.DecodeError, OSError) as error:
            answer = Answer(error=str(error))
        with suppress(OSError):
            connection.sendall(msgspec.json.encode(answer))


def ask(box: Box, request: Request) -> None:
    """Have the supervisor carry it out. Raises BoxError: what it says, or that it isn't there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.connect(str(box.run_path / "control"))
            connection.sendall(msgspec.json.encode(request))
            said = connection.recv(LARGEST)
        except OSError as error:
            start = f"kubesvc up{name_flag(box.name)}"
            raise BoxError(f"box {box.name!r} doesn't answer ({error}): is it running? `{start}` starts it") from error
    if not said:
        raise BoxError(f"box {box.name!r} ended meanwhile; see {box.path / 'logs' / 'supervisor.log'}")
    answer = msgspec.json.decode(said, type=Answer)
    if answer.error:
        raise BoxError(answer.error)


async def until_ready(box: Box, name: str) -> None:
    """Wait until the node is Ready. Raises BoxError."""
    session = kubeconfig.load(box.kubeconfig)
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(NotFound, Unreachable):
                    if (await session.read(NODE, Node, "", name)).ready:
                        return
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise BoxError(f"node {name} isn't ready after {PATIENCE:.0f} s; see {box.path / 'logs'}") from error
    finally:
        await session.close()


async def forget(box: Box, name: str) -> None:
    """Delete the Node and the pods that were on it: nothing of them runs any more."""
    session = kubeconfig.load(box.kubeconfig)
    try:
        nodes = await session.list(NODE, Node)
        await forget_nodes(session, [node for node in nodes.items if node.name == name])
    finally:
        await session.close()

"""The remote-command subprotocols of a WebSocket, v5.channel.k8s.io and v4: what each frame means. Pure.

frame = channel, payload     0 stdin  1 stdout  2 stderr  3 error (a Status, at the end)  4 resize
                             255 close (v5): the payload is the channel that gets no more
"""

from __future__ import annotations

import msgspec

from kubesvc.api.meta import JSON

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255


class Input(msgspec.Struct, frozen=True):
    """Bytes for the command's stdin."""

    data: bytes


class EndOfInput(msgspec.Struct, frozen=True):
    """No more stdin."""


class Resize(msgspec.Struct, frozen=True):
    """The client's terminal has another size."""

    width: int
    height: int


class _Size(msgspec.Struct, rename={"width": "Width", "height": "Height"}):
    width: int = 0
    height: int = 0


def parse(frame: bytes) -> Input | EndOfInput | Resize | None:
    """What a client's frame asks for; None for what isn't understood, which is passed over."""
    if not frame:
        return None
    channel, payload = frame[0], frame[1:]
    if channel == STDIN:
        return Input(payload) if payload else None
    if channel == CLOSE and payload == bytes([STDIN]):
        return EndOfInput()
    if channel == RESIZE:
        try:
            size = msgspec.json.decode(payload, type=_Size)
        except msgspec.DecodeError:
            return None
        return Resize(size.width, size.height) if 0 < size.width < 65536 and 0 < size.height < 65536 else None
    return None


def final_status(code: int) -> bytes:
    """What the error channel says at the end: how the command ended."""
    status: JSON = {"metadata": {}, "status": "Success"}
    if code != 0:
        status = {
            "metadata": {},
            "status": "Failure",
            "reason": "NonZeroExitCode",
            "message": f"command terminated with exit code {code}",
            "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
        }
    return msgspec.json.encode(status)


def internal_error(message: str) -> bytes:
    """What the error channel says when the command could not be run at all."""
    status: JSON = {
        "metadata": {},
        "status": "Failure",
        "reason": "InternalError",
        "message": f"Internal error occurred: {message}",
        "code": 500,
    }
    return msgspec.json.encode(status)

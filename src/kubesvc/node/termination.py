"""What a container says of its end: its termination message, a file it may write, or the last of its log.

Follows the kubelet: 4096 bytes of the file; with FallbackToLogsOnError, when the file is empty and the container
failed, the last 80 lines of its log, at most 2048 bytes.
"""

from __future__ import annotations

from pathlib import Path

from kubesvc.node import logs

MAX_FILE, MAX_LOG, MAX_LINES = 4096, 2048, 80
FILE = "termination-log"  # in the bundle


def make(bundle: Path) -> Path:
    """The file that is bound at terminationMessagePath."""
    path = bundle / FILE
    path.touch()
    path.chmod(0o666)
    return path


def message(bundle: Path, log: Path, policy: str, code: int | None) -> str:
    try:
        with (bundle / FILE).open("rb") as file:
            text = file.read(MAX_FILE)
    except OSError:
        return ""
    if not text and code and policy == "FallbackToLogsOnError":
        text = _last_of(log)
    return text.decode(errors="replace")


def _last_of(log: Path) -> bytes:
    try:
        with log.open("rb") as file:
            file.seek(logs.tail_offset(file.fileno(), MAX_LINES))
            lines = file.read().splitlines(keepends=True)
    except OSError:
        return b""
    return b"".join(logs.render(line, logs.Options()) for line in lines)[-MAX_LOG:]

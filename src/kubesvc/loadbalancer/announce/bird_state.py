"""What BIRD answers over its control socket. Pure.

reply  ::=  { CODE ("-" | " ") TEXT | " " TEXT }*    a CODE followed by a space ends it; 8xxx and 9xxx are errors
"""

from __future__ import annotations

import re

import msgspec


class Session(msgspec.Struct, frozen=True):
    """`state` is of BGP's state machine, such as Established; `advertised` counts routes; `problem`: the last error."""

    state: str
    advertised: int = 0
    problem: str = ""


def is_whole(reply: str) -> bool:
    """Whether the reply has its last line."""
    lines = reply.splitlines()
    return reply.endswith("\n") and bool(lines) and re.match(r"\d{4} ", lines[-1] + " ") is not None


def error(reply: str) -> str:
    """What the reply complains of; "" when it doesn't."""
    found = [line[5:] for line in reply.splitlines() if re.match(r"[89]\d{3}[ -]", line)]
    return "; ".join(found)


def sessions(reply: str) -> dict[str, Session]:
    """Of the reply to `show protocols all`: protocol -> its session, of those that speak BGP."""
    found: dict[str, Session] = {}
    name, fields = "", dict[str, str]()
    for line in [*reply.splitlines(), "1002-end BGP"]:
        if head := re.match(r"1002-(\S+)\s+(\S+)", line):
            if name:
                found[name] = _session(fields)
            name, fields = (head[1], {}) if head[2] == "BGP" and head[1] != "end" else ("", {})
        elif name and ":" in line:
            key, _, value = line.partition(":")
            fields.setdefault(re.sub(r"^1006-", "", key).strip(), value.strip())
    return found


def _session(fields: dict[str, str]) -> Session:
    exported = re.search(r"(\d+) exported", fields.get("Routes", ""))
    return Session(fields.get("BGP state", "Down"), int(exported[1]) if exported else 0, fields.get("Last error", ""))

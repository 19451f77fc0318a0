"""USER of an image, looked up in the image's own /etc/passwd and /etc/group. Pure. As runtimes do it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec


class Account(msgspec.Struct, frozen=True):
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()


def resolve(text: str, passwd: str, group: str) -> Account:
    """USER[:GROUP], by name or number. Raises ValueError for a name that isn't there."""
    user, _, wanted = text.partition(":")
    entry = next((e for e in _entries(passwd, 4) if user and user in (e[0], e[2])), None)
    if entry is None and user and not user.isdigit():
        raise ValueError(f"unable to find user {user}: no matching entries in passwd file")
    uid = int(entry[2]) if entry else int(user or 0)
    gid = int(entry[3]) if entry else 0
    if wanted:
        found = next((e for e in _entries(group, 3) if wanted in (e[0], e[2])), None)
        if found is None and not wanted.isdigit():
            raise ValueError(f"unable to find group {wanted}: no matching entries in group file")
        return Account(uid, int(found[2]) if found else int(wanted))
    name = entry[0] if entry else ""
    member = [int(e[2]) for e in _entries(group, 3) if name and len(e) > 3 and name in e[3].split(",")]
    return Account(uid, gid, tuple(member))


def _entries(text: str, numbers_until: int) -> Iterator[list[str]]:
    """Lines whose fields from the third on, up to `numbers_until`, are numbers."""
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) >= numbers_until and all(field.isdigit() for field in fields[2:numbers_until]):
            yield fields

"""What becomes of an object whose owners are gone or going, and of an owner that waits for its dependents.

Follows the garbage collector: one living owner keeps an object, and references to the others are dropped; with none it
is deleted, as a foreground deletion where an owner waits for it. An owner with the finalizer foregroundDeletion stays
until no dependent blocks it, one with the finalizer orphan until its dependents have let go of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

import msgspec

from kubesvc.api.meta import JSON, Object
from kubesvc.controllers import finalizers
from kubesvc.controllers.ownership import without_owners

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


class Owner(Enum):
    SOLID = "solid"
    ABSENT = "absent"
    WAITING = "waiting"  # being deleted in the foreground: it waits for its dependents


class Plan(msgspec.Struct, frozen=True):
    """`delete` is a propagation policy; `patch` changes the object itself; `release` its dependents to be let go of;
    `pursue` its dependents to be looked at."""

    delete: str = ""
    patch: JSON | None = None
    release: tuple[Object, ...] = ()
    pursue: tuple[Object, ...] = ()


def state_of(owner: Object | None, uid: str) -> Owner:
    """What the object found under an owner reference's name means for the reference's `uid`."""
    if owner is None or owner.metadata.uid != uid:
        return Owner.ABSENT
    if owner.metadata.deletion_timestamp is not None and FOREGROUND in owner.metadata.finalizers:
        return Owner.WAITING
    return Owner.SOLID


def plan(item: Object, owners: Mapping[str, Owner], dependents: Sequence[Object]) -> Plan:
    """`owners` maps the uid of each owner reference -> its state; `dependents` are those that name `item`."""
    if item.metadata.deletion_timestamp is not None:
        return _going(item, dependents)
    if not owners:
        return Plan()
    solid = [uid for uid, state in owners.items() if state is Owner.SOLID]
    others = frozenset(uid for uid, state in owners.items() if state is not Owner.SOLID)
    if solid:
        return Plan(patch=without_owners(item, others)) if others else Plan()
    waited_for = Owner.WAITING in owners.values()
    if FOREGROUND in item.metadata.finalizers or (waited_for and dependents):
        return Plan(delete="Foreground")
    return Plan(delete="Orphan" if ORPHAN in item.metadata.finalizers else "Background")


def _going(item: Object, dependents: Sequence[Object]) -> Plan:
    held_by = item.metadata.finalizers
    if ORPHAN in held_by:
        if dependents:
            return Plan(release=tuple(dependents))
        return Plan(patch=finalizers.without(item, ORPHAN))
    if FOREGROUND in held_by:
        uid = item.metadata.uid
        blocking = any(r.uid == uid and r.block_owner_deletion for d in dependents for r in d.metadata.owner_references)
        return Plan(pursue=tuple(dependents)) if blocking else Plan(patch=finalizers.without(item, FOREGROUND))
    return Plan()

"""A pod's search path, walked on the server's side. Pure.

A pod's resolver tries `NAME` under each domain of its search path, two questions (A and AAAA) a domain:

    NAME.NS.svc.ZONE   NAME.svc.ZONE   NAME.ZONE   NAME.of-the-host …   NAME
    ──── asked ─────   ─────────── inside ──────   ────── outside ───────────     ┄ in the zone again: inside

The first question shows where it is going, if the asker's namespace is known to be NS. So it is answered at once by a
CNAME to the first of these names that exists. A name of one label is left alone: inside it can only be a Service of
this namespace, and whether the world has it is for the client to ask last.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubesvc.dns import wire


def candidates(
    name: bytes, namespace: bytes, zone: bytes, searches: Sequence[bytes]
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """(names in the zone, names outside) that `name` may stand for, each in the order a resolver tries them.

    All are lower-case wire names; both are empty when `name` isn't one of the first search domain of `namespace`.
    """
    domain = wire.join([namespace, b"svc"], zone)
    labels = wire.labels_over(name, domain)
    if labels is None or len(labels) < 2:
        return (), ()
    bare = name[: -len(domain)]
    found = (bare + domain[1 + domain[0] :], bare + zone)
    absolute = bare + b"\0"
    if wire.labels_over(absolute, zone) is not None:
        return (*found, absolute), ()
    return found, (*(bare + suffix for suffix in searches if len(bare + suffix) <= 255), absolute)

"""Admission: what an object must look like before it is stored.

    tree ─► default ─► prepare ─► validate ─► claims ─► one store commit
            (fill in)  (what the   (causes)    (addresses, node ports)
                        server owns)

Pure: trees in, trees changed in place, lists of causes out. A file a kind; kinds without one get what is common to all.
Follows pkg/apis/*/v1/defaults.go, pkg/registry/*/strategy.go and pkg/apis/*/validation of Kubernetes 1.36.
"""

from __future__ import annotations

from kubesvc.api.errors import ApiError, Cause
from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.apiserver.admission.context import ClaimChange, Cluster, Context, Taken

__all__ = [
    "ClaimChange",
    "Cluster",
    "Context",
    "Taken",
    "address_object",
    "claim_lost",
    "claims",
    "default",
    "prepare",
    "validate",
    "warnings",
]


def default(kind: Kind, tree: JSON) -> None:
    """Fill in what the client left out, in place. For creates and updates."""


def prepare(kind: Kind, new: JSON, old: JSON | None, context: Context) -> None:
    """Put right what the server owns, in place: status, generation, and fields a client may leave out of an update."""


def validate(kind: Kind, new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    """Why `new` can't be stored; empty when it can."""
    return []


def warnings(kind: Kind, tree: JSON) -> list[str]:
    """Texts for Warning headers."""
    return []


def claims(kind: Kind, new: JSON | None, old: JSON | None, context: Context, taken: Taken) -> list[ClaimChange]:
    """What the commit must claim and release; chooses addresses and node ports, changing `new` in place.

    `new` is None for a deletion. Raises Invalid or InternalError when nothing is left to choose.
    """
    return []


def claim_lost(kind: Kind, new: JSON, change: ClaimChange) -> ApiError:
    """The error for a claim the client asked for by value that somebody else holds."""
    raise NotImplementedError


def address_object(address: str, service: JSON, context: Context) -> JSON:
    """The IPAddress object that claims `address` for `service`."""
    raise NotImplementedError

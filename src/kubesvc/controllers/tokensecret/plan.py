"""What becomes of a Secret of type kubernetes.io/service-account-token: the API server fills it when it is written; it
goes with the ServiceAccount it was made for, also when another has the name by now.

Follows pkg/controller/serviceaccount/tokens_controller.go.
"""

from __future__ import annotations

from enum import Enum

from kubesvc.api.meta import Object

TYPE = "kubernetes.io/service-account-token"
NAME, UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"


class Plan(Enum):
    KEEP = "keep"
    FILL = "fill"  # written again, so that the API server puts a token into it
    DELETE = "delete"


def account_name(secret: Object) -> str:
    return secret.metadata.annotations.get(NAME, "")


def plan(secret: Object, account: Object | None) -> Plan:
    """`account` is the ServiceAccount it names, as it is now; None: there is none."""
    uid = secret.metadata.annotations.get(UID, "")
    if account is None or (uid and uid != account.metadata.uid):
        return Plan.DELETE
    return Plan.KEEP if uid else Plan.FILL

"""CertificateSigningRequests."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from kubesvc.api import registry
from kubesvc.api.meta import JSON
from kubesvc.apiserver.printing.columns import AGE, NAME, NONE, Column, Printer, at, name_of
from kubesvc.apiserver.printing.duration import age, human


def _request(found: JSON, now: datetime) -> list[Any]:
    seconds = at(found, "spec", "expirationSeconds")
    wanted = NONE if seconds is None else human(timedelta(seconds=seconds))
    signer, asker = at(found, "spec", "signerName") or NONE, at(found, "spec", "username") or ""
    return [name_of(found), age(found, now), signer, asker, wanted, _condition(found)]


def _condition(found: JSON) -> str:
    types = {c.get("type") for c in at(found, "status", "conditions") or ()}
    words = ["Denied" if "Denied" in types else "Approved" if "Approved" in types else "Pending"]
    words += ["Failed"] if "Failed" in types else []
    words += ["Issued"] if at(found, "status", "certificate") else []
    return ",".join(words)


_KIND = registry.CERTIFICATE_SIGNING_REQUEST
PRINTERS = {
    (_KIND.group, _KIND.plural): Printer(
        (NAME, AGE, Column("SignerName"), Column("Requestor"), Column("RequestedDuration"), Column("Condition")),
        _request,
    )
}

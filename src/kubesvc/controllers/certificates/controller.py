"""Approves nodes' own client certificates, signs what is approved, removes what is done with."""

from __future__ import annotations

import base64
import logging
from datetime import timedelta
from typing import Any

from kubesvc.api.certificates import CertificateSigningRequest
from kubesvc.api.meta import JSON, format_time
from kubesvc.api.registry import CERTIFICATE_SIGNING_REQUEST, CERTIFICATES, SUBJECT_ACCESS_REVIEW
from kubesvc.client.queue import WorkQueue
from kubesvc.controllers.certificates.plan import plan
from kubesvc.controllers.certificates.signing import Signer
from kubesvc.controllers.context import Context

log = logging.getLogger(__name__)

_KIND = CERTIFICATE_SIGNING_REQUEST


class CertificatesController:
    def __init__(self, context: Context) -> None:
        self._context = context
        config = context.config
        life = timedelta(seconds=config.signing_duration)
        self._signer = Signer(config.signer, life) if config.signer is not None else None
        self.queue: WorkQueue[str] = WorkQueue("certificates")
        context.caches.signing_requests.on_change(self._changed)

    async def run(self) -> None:
        await self.queue.run(self.reconcile)

    def _changed(self, old: object, new: CertificateSigningRequest | None) -> None:
        if new is not None:
            self.queue.add(new.name)

    async def reconcile(self, name: str) -> None:
        request: CertificateSigningRequest | None = self._context.caches.signing_requests.get("", name)
        if request is None:
            return
        now = self._context.now()
        decided = plan(request, now)
        if decided.remove:
            await self._context.writer.delete(_KIND, request)
            return
        if decided.wait is not None:
            self.queue.add_after(name, decided.wait)
        if decided.fail:
            await self._tell(request, "status", "Failed", "SignerValidationFailure", decided.fail)
        elif decided.sign and self._signer is not None:
            signed = self._signer.sign(request, now)
            status = {"certificate": base64.b64encode(signed).decode()}
            await self._write(request, "status", status)
            log.info("signed %s of %s for %s", name, request.spec.username, request.spec.signer_name)
        elif decided.ask and await self._allowed(request, decided.ask):
            await self._tell(request, "approval", "Approved", "AutoApproved", decided.say)

    async def _allowed(self, request: CertificateSigningRequest, subresource: str) -> bool:
        """Whether who asks may have it approved without anybody looking."""
        attributes = {"group": CERTIFICATES, "resource": _KIND.plural, "verb": "create", "subresource": subresource}
        spec: JSON = {"user": request.spec.username, "groups": request.spec.groups, "resourceAttributes": attributes}
        answer = await self._context.session.create(SUBJECT_ACCESS_REVIEW, {"metadata": {}, "spec": spec})
        return bool(answer["status"]["allowed"])

    async def _tell(
        self, request: CertificateSigningRequest, subresource: str, of: str, reason: str, message: str
    ) -> None:
        now = format_time(self._context.now())
        condition = {"type": of, "status": "True", "reason": reason, "message": message, "lastUpdateTime": now}
        await self._write(request, subresource, {"conditions": [condition]})

    async def _write(self, request: CertificateSigningRequest, subresource: str, status: dict[str, Any]) -> None:
        """Beside the conditions there are. Raises Conflict where somebody was faster."""
        known = await self._context.session.get(_KIND, "", request.name)
        if known["metadata"]["resourceVersion"] != request.metadata.resource_version:
            return  # the newer one is on its way, and is looked at then
        before = known.get("status") or {}
        added = [*(before.get("conditions") or ()), *status.get("conditions", ())]
        known["status"] = {**before, **status, **({"conditions": added} if added else {})}
        await self._context.session.update(_KIND, known, subresource=subresource)

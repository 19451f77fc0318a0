"""The webhooks there are, in the order they are asked: by their configurations' names, then as listed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubesvc.api.meta import JSON
from kubesvc.api.registry import MUTATING_WEBHOOK_CONFIGURATION, VALIDATING_WEBHOOK_CONFIGURATION, Kind
from kubesvc.apiserver.webhooks.configuration import Webhook, webhooks

if TYPE_CHECKING:
    from kubesvc.apiserver.webhooks.calling import Caller

GROUP = MUTATING_WEBHOOK_CONFIGURATION.group
KINDS = (MUTATING_WEBHOOK_CONFIGURATION, VALIDATING_WEBHOOK_CONFIGURATION)


class Register:
    """Told of every configuration that is written, in the commit itself. `caller` is set by the server."""

    caller: Caller

    def __init__(self) -> None:
        self.mutating: tuple[Webhook, ...] = ()
        self.validating: tuple[Webhook, ...] = ()
        self._of: dict[Kind, dict[str, list[Webhook]]] = {kind: {} for kind in KINDS}

    @property
    def any(self) -> bool:
        return bool(self.mutating or self.validating)

    def put(self, kind: Kind, name: str, tree: JSON | None) -> None:
        """A configuration as it is now; None: it is gone."""
        if tree is None:
            self._of[kind].pop(name, None)
        else:
            self._of[kind][name] = webhooks(tree)
        self.mutating, self.validating = (
            tuple(webhook for _, found in sorted(self._of[of].items()) for webhook in found) for of in KINDS
        )

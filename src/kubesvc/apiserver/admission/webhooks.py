"""Webhook configurations: their rules live with everything else about webhooks."""

from __future__ import annotations

from kubesvc.api import registry
from kubesvc.apiserver.admission.rules import Rules
from kubesvc.apiserver.webhooks import configuration

MUTATING = Rules(
    default=configuration.default_mutating,
    prepare=configuration.prepare,
    validate=configuration.validate,
    warnings=configuration.warnings,
)
VALIDATING = Rules(
    default=configuration.default,
    prepare=configuration.prepare,
    validate=configuration.validate,
    warnings=configuration.warnings,
)
ADMITS = (
    (registry.MUTATING_WEBHOOK_CONFIGURATION, MUTATING),
    (registry.VALIDATING_WEBHOOK_CONFIGURATION, VALIDATING),
)

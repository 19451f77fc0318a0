"""CustomResourceDefinitions: their rules live with everything else about custom resources."""

from __future__ import annotations

from kubesvc.api import registry
from kubesvc.apiserver.admission.rules import Rules
from kubesvc.apiserver.custom import definition

DEFINITION = Rules(
    default=definition.default,
    prepare=definition.prepare,
    validate=definition.validate,
    warnings=definition.warnings,
)
ADMITS = ((registry.CUSTOM_RESOURCE_DEFINITION, DEFINITION),)

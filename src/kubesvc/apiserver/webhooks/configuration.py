"""The rules of Mutating- and ValidatingWebhookConfigurations, and the typed form of a webhook.

Source: pkg/apis/admissionregistration/v1/defaults.go, pkg/apis/admissionregistration/validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import msgspec

from kubesvc.api import names
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON, LabelSelector, Struct
from kubesvc.api.selectors import Selector, from_label_selector
from kubesvc.apiserver.admission import metadata
from kubesvc.apiserver.admission.causes import duplicate, invalid, not_supported, required, too_many
from kubesvc.apiserver.admission.context import Context
from kubesvc.apiserver.custom import cel

_PORT = 443  # of a Service, where none is given
_MOST_CONDITIONS = 64
_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")


class Rule(Struct, frozen=True):
    operations: list[str] = []
    api_groups: list[str] = []
    api_versions: list[str] = []
    resources: list[str] = []
    scope: str = "*"


class ServiceReference(Struct, frozen=True):
    namespace: str = ""
    name: str = ""
    path: str = ""
    port: int = _PORT

    @property
    def host(self) -> str:
        """The name that its certificate must be for."""
        return f"{self.name}.{self.namespace}.svc"


class ClientConfig(Struct, frozen=True):
    url: str = ""
    service: ServiceReference | None = None
    ca_bundle: str = ""  # base64 of PEM


class Condition(Struct, frozen=True):
    name: str = ""
    expression: str = ""


class Webhook(Struct, frozen=True):
    """One webhook, defaults filled in. `configuration` is the name of the object it is in."""

    name: str = ""
    client_config: ClientConfig = ClientConfig()
    rules: list[Rule] = []
    failure_policy: str = "Fail"
    match_policy: str = "Equivalent"
    namespace_selector: LabelSelector = LabelSelector()
    object_selector: LabelSelector = LabelSelector()
    match_conditions: list[Condition] = []
    side_effects: str = "None"
    timeout_seconds: int = 10
    reinvocation_policy: str = "Never"
    configuration: str = ""

    @property
    def address(self) -> str:
        """What is called: the URL given, or that of the Service, under its own name."""
        url, service = self.client_config.url, self.client_config.service
        if service is not None:
            url = f"https://{service.host}:{service.port}/{service.path.removeprefix('/')}"
        return f"{url}?timeout={self.timeout_seconds}s"

    @property
    def namespaces(self) -> Selector:
        return from_label_selector(self.namespace_selector)

    @property
    def objects(self) -> Selector:
        return from_label_selector(self.object_selector)


def webhooks(tree: JSON) -> list[Webhook]:
    """Those of one configuration, in its order."""
    name = tree["metadata"]["name"]
    return [msgspec.convert({**one, "configuration": name}, Webhook) for one in tree.get("webhooks") or ()]


# ── admission of the configurations themselves ───────────────────────────────────────────────────────────────────────


def default(tree: JSON) -> None:
    for webhook in tree.get("webhooks") or ():
        for word, value in (("failurePolicy", "Fail"), ("matchPolicy", "Equivalent"), ("timeoutSeconds", 10)):
            webhook.setdefault(word, value)
        for word in ("namespaceSelector", "objectSelector"):
            webhook.setdefault(word, {})
        for rule in webhook.get("rules") or ():
            rule.setdefault("scope", "*")
        if isinstance(service := (webhook.get("clientConfig") or {}).get("service"), dict):
            service.setdefault("port", _PORT)


def default_mutating(tree: JSON) -> None:
    default(tree)
    for webhook in tree.get("webhooks") or ():
        webhook.setdefault("reinvocationPolicy", "Never")


def prepare(new: JSON, old: JSON | None, context: Context) -> None:
    before = (old["metadata"].get("generation") or 1) if old is not None else 0
    changed = old is None or new.get("webhooks") != old.get("webhooks")
    new["metadata"]["generation"] = before + changed


def validate(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, webhook in enumerate(new.get("webhooks") or ()):
        path = f"webhooks[{index}]"
        name = webhook.get("name") or ""
        if name in seen:
            causes.append(duplicate(f"{path}.name", name))
        seen.add(name)
        causes += _validate(webhook, name, path)
    return causes


def _validate(webhook: JSON, name: str, path: str) -> Iterator[Cause]:
    if len(name.split(".")) < 3 or names.subdomain(name):
        yield invalid(f"{path}.name", name, "should be a domain with at least three segments separated by dots")
    for word, allowed in (
        ("failurePolicy", ("Fail", "Ignore")),
        ("matchPolicy", ("Equivalent", "Exact")),
        ("sideEffects", ("None", "NoneOnDryRun")),
        ("reinvocationPolicy", ("IfNeeded", "Never")),
    ):
        if word in webhook and webhook[word] not in allowed:
            yield not_supported(f"{path}.{word}", webhook[word], allowed)
    if "sideEffects" not in webhook:
        yield required(f"{path}.sideEffects", "must specify one of None, NoneOnDryRun")
    seconds = webhook.get("timeoutSeconds")
    if seconds is not None and not 1 <= seconds <= 30:
        yield invalid(f"{path}.timeoutSeconds", seconds, "the timeout value must be between 1 and 30 seconds")
    if "v1" not in (webhook.get("admissionReviewVersions") or ()):
        found = webhook.get("admissionReviewVersions") or []
        yield invalid(f"{path}.admissionReviewVersions", found, "must include at least one of v1")
    yield from metadata.validate_selector(webhook.get("namespaceSelector"), f"{path}.namespaceSelector")
    yield from metadata.validate_selector(webhook.get("objectSelector"), f"{path}.objectSelector")
    yield from _validate_client(webhook.get("clientConfig") or {}, f"{path}.clientConfig")
    yield from _validate_conditions(webhook.get("matchConditions") or (), f"{path}.matchConditions")
    for index, rule in enumerate(webhook.get("rules") or ()):
        here = f"{path}.rules[{index}]"
        for word in ("operations", "apiGroups", "apiVersions", "resources"):
            if not rule.get(word):
                yield required(f"{here}.{word}")
        for at, operation in enumerate(rule.get("operations") or ()):
            if operation not in _OPERATIONS:
                yield not_supported(f"{here}.operations[{at}]", operation, _OPERATIONS)
        if rule.get("scope") not in ("*", "Cluster", "Namespaced"):
            yield not_supported(f"{here}.scope", rule.get("scope"), ("*", "Cluster", "Namespaced"))


def _validate_conditions(conditions: Sequence[JSON], path: str) -> Iterator[Cause]:
    seen: set[str] = set()
    if len(conditions) > _MOST_CONDITIONS:
        yield too_many(path, len(conditions), _MOST_CONDITIONS)
    for index, condition in enumerate(conditions):
        here, name, text = f"{path}[{index}]", condition.get("name") or "", condition.get("expression") or ""
        if not name:
            yield required(f"{here}.name")
        yield from (invalid(f"{here}.name", name, why) for why in (names.qualified_name(name) if name else ()))
        if name in seen:
            yield duplicate(f"{here}.name", name)
        seen.add(name)
        if not text.strip():
            yield required(f"{here}.expression")
        elif (error := _uncompiled(text)) is not None and not error.unsupported:
            yield invalid(f"{here}.expression", text, f"compilation failed: {error}")


def _uncompiled(expression: str) -> cel.CelError | None:
    try:
        cel.compiled(expression)
    except cel.CelError as error:
        return error
    return None


def _validate_client(config: JSON, path: str) -> Iterator[Cause]:
    url, service = config.get("url"), config.get("service")
    if (url is None) == (service is None):
        yield required(path, "exactly one of url or service is required")
    elif url is not None:
        parts = urlsplit(url)
        if parts.scheme != "https":
            yield invalid(f"{path}.url", parts.scheme, "'https' is the only allowed URL scheme; desired format: "
                          "https://host[/path]")  # fmt: skip
        if not parts.hostname:
            yield invalid(f"{path}.url", "", "host must be specified; desired format: https://host[/path]")
        for word, found in (("user information", parts.username), ("fragment", parts.fragment), ("query", parts.query)):
            if found:
                yield invalid(f"{path}.url", found, f"{word} is not permitted in the URL")
    elif service is not None:
        for word in ("namespace", "name"):
            if not service.get(word):
                yield required(f"{path}.service.{word}", f"service {word} is required")
        for why in names.port_number(service.get("port", _PORT)):
            yield invalid(f"{path}.service.port", service["port"], f"port is not valid: {why}")
        yield from _validate_path(service.get("path") or "", f"{path}.service.path")


def _validate_path(text: str, path: str) -> Iterator[Cause]:
    if text in ("", "/"):
        return
    if not text.startswith("/"):
        yield invalid(path, text, "must start with a '/'")
    for index, step in enumerate(text.removeprefix("/").removesuffix("/").split("/")):
        for why in names.subdomain(step) if step else ["may not be empty"]:
            yield invalid(path, text, f"segment[{index}]{':' if step else ''} {why}")


def warnings(tree: JSON) -> list[str]:
    found = []
    for webhook in tree.get("webhooks") or ():
        name = webhook.get("name")
        for index, condition in enumerate(webhook.get("matchConditions") or ()):
            if (error := _uncompiled(condition.get("expression") or "")) is not None:
                found.append(f"webhook {name}: matchConditions[{index}] can't be evaluated, and so it fails: {error}")
    return found

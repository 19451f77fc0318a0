"""The rules of CustomResourceDefinitions, and the kinds that an accepted one defines.

Source: apiextensions-apiserver pkg/apis/apiextensions/v1/defaults.go, pkg/apis/apiextensions/validation and
pkg/registry/customresourcedefinition/strategy.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kubesvc.api import names
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON, format_time
from kubesvc.apiserver.admission.causes import IMMUTABLE, duplicate, forbidden, invalid, not_supported, required
from kubesvc.apiserver.admission.context import Context
from kubesvc.apiserver.custom import cel, jsonpath, rules, structural, validation
from kubesvc.apiserver.custom.kind import CustomKind, Scale

CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_SCOPES = ("Cluster", "Namespaced")
_PATH = re.compile(r"(\.[A-Za-z_][-A-Za-z0-9_]*)+")
_COLUMN_TYPES = ("integer", "number", "string", "boolean", "date")
_COLUMN_PATH = re.compile(r"[.\[$].*", re.DOTALL)
_VERSION = re.compile(r"v([1-9][0-9]*)(?:(alpha|beta)([1-9][0-9]*))?")
_CONVERSION = "conversion by webhook is not done: objects are served in each version as they are stored"


# ── admission ────────────────────────────────────────────────────────────────────────────────────────────────────────


def default(tree: JSON) -> None:
    spec = tree.setdefault("spec", {})
    spec.setdefault("conversion", {}).setdefault("strategy", "None")
    spec.setdefault("scope", "")
    names_ = spec.setdefault("names", {})
    if kind := names_.get("kind"):
        if not names_.get("singular"):
            names_["singular"] = kind.lower()
        if not names_.get("listKind"):
            names_["listKind"] = f"{kind}List"


def prepare(new: JSON, old: JSON | None, context: Context) -> None:
    if old is None:
        stored_in = [v.get("name") or "" for v in new["spec"].get("versions") or () if v.get("storage")]
        new["status"] = {"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored_in}
        new["metadata"]["generation"] = 1
        finalizers = new["metadata"].setdefault("finalizers", [])
        if CLEANUP not in finalizers:
            finalizers.append(CLEANUP)
        return
    if context.subresource == "status":
        new["spec"] = old["spec"]
    else:
        new["status"] = old.get("status") or {}
        for version in new["spec"].get("versions") or ():
            stored_in = new["status"].get("storedVersions") or []
            if version.get("storage") and (name := version.get("name") or "") not in stored_in:
                new["status"] = {**new["status"], "storedVersions": [*stored_in, name]}
    new["metadata"]["generation"] = (old["metadata"].get("generation") or 1) + (new["spec"] != old["spec"])


def validate(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    if context.subresource == "status" or (old is not None and old["spec"] == new["spec"]):
        return []
    return list(_validate(new, old))


def _validate(new: JSON, old: JSON | None) -> Iterator[Cause]:
    spec = new["spec"]
    group, given = spec.get("group") or "", spec.get("names") or {}
    if not group:
        yield required("spec.group")
    elif len(parts := group.split(".")) < 2:
        yield invalid("spec.group", group, "should be a domain with at least one dot")
    else:
        yield from (invalid("spec.group", group, why) for part in parts for why in names.label(part))
    for word in ("plural", "singular", "kind", "listKind"):
        text = given.get(word) or ""
        if not text:
            yield required(f"spec.names.{word}")
        else:
            yield from (invalid(f"spec.names.{word}", text, why) for why in names.label(text.lower()))
    for word in ("shortNames", "categories"):
        for index, text in enumerate(given.get(word) or ()):
            yield from (invalid(f"spec.names.{word}[{index}]", text, why) for why in names.label(text))
    expected = f"{given.get('plural')}.{group}"
    if new["metadata"].get("name") != expected:
        yield invalid("metadata.name", new["metadata"].get("name"), f'must be spec.names.plural+"."+spec.group')  # noqa: F541
    if spec.get("scope") not in _SCOPES:
        yield not_supported("spec.scope", spec.get("scope"), _SCOPES)
    if spec.get("preserveUnknownFields"):
        yield invalid("spec.preserveUnknownFields", True, "cannot set to true, set "
                      "x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead")  # fmt: skip
    strategy = (spec.get("conversion") or {}).get("strategy")
    if strategy not in ("None", "Webhook"):
        yield not_supported("spec.conversion.strategy", strategy, ("None", "Webhook"))
    if old is not None:
        before = old["spec"]
        for path, was, now in (
            ("spec.scope", before.get("scope"), spec.get("scope")),
            ("spec.group", before.get("group"), group),
            ("spec.names.kind", before["names"].get("kind"), given.get("kind")),
            ("spec.names.plural", before["names"].get("plural"), given.get("plural")),
        ):
            if was != now:
                yield invalid(path, now, IMMUTABLE)
    yield from _versions(spec, (new.get("status") or {}).get("storedVersions") or ())


def _versions(spec: JSON, stored_in: Any) -> Iterator[Cause]:
    versions = spec.get("versions") or []
    found = [v.get("name") or "" for v in versions]
    for index, version in enumerate(versions):
        path, name = f"spec.versions[{index}]", version.get("name") or ""
        yield from (invalid(f"{path}.name", name, why) for why in names.label(name))
        if name in found[:index]:
            yield duplicate(f"{path}.name", name)
        yield from _version(version, path)
    if sum(bool(v.get("storage")) for v in versions) != 1:
        yield invalid("spec.versions", found, "must have exactly one version marked as storage version")
    for index, name in enumerate(stored_in):
        if name not in found:
            yield invalid(f"status.storedVersions[{index}]", name, "must appear in spec.versions")


def _version(version: JSON, path: str) -> Iterator[Cause]:
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    here = f"{path}.schema.openAPIV3Schema"
    if schema is None:
        yield required(here, "schemas are required")
        return
    causes = structural.check(schema, here)
    yield from causes
    if not causes:
        yield from rules.check(schema, here)
        yield from _patterns_and_defaults(schema, here)
    subresources = version.get("subresources") or {}
    if isinstance(scale := subresources.get("scale"), dict):
        for word, start in (
            ("specReplicasPath", ".spec."),
            ("statusReplicasPath", ".status."),
            ("labelSelectorPath", ""),
        ):
            text = scale.get(word)
            if not text and word != "labelSelectorPath":
                yield required(f"{path}.subresources.scale.{word}")
            elif text and not (_PATH.fullmatch(text) and text.startswith(start or (".spec.", ".status."))):
                yield invalid(f"{path}.subresources.scale.{word}", text, "should be a json path under .spec or .status")
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        at = f"{path}.additionalPrinterColumns[{index}]"
        if not column.get("name"):
            yield required(f"{at}.name")
        if column.get("type") not in _COLUMN_TYPES:
            yield not_supported(f"{at}.type", column.get("type"), _COLUMN_TYPES)
        if not _COLUMN_PATH.fullmatch(column.get("jsonPath") or ""):
            yield invalid(
                f"{at}.jsonPath", column.get("jsonPath") or "", "should be a json path such as .spec.replicas"
            )
    fields = version.get("selectableFields") or ()
    for index, one in enumerate(fields):
        if not _PATH.fullmatch(one.get("jsonPath") or ""):
            yield invalid(f"{path}.selectableFields[{index}].jsonPath", one.get("jsonPath") or "", "is an invalid path")


def _patterns_and_defaults(schema: JSON, path: str) -> Iterator[Cause]:
    for found, where in structural.judges(schema, path):
        if (pattern := found.get("pattern")) and (why := cel.pattern_error(pattern)):
            yield invalid(f"{where}.pattern", pattern, f"must be a valid regular expression, but isn't: {why}")
    for found, where in structural.walk(schema, path):
        if "default" in found:
            if where == path:
                yield forbidden(f"{where}.default", "must not be set at the root")
                continue
            probe = {"properties": {"default": found}, "type": "object"}
            for cause in validation.validate(probe, {"default": found["default"]}, validation.ABSENT, cel.match):
                yield Cause(cause.reason, cause.message, f"{where}.{cause.field}")


def warnings(tree: JSON) -> list[str]:
    """What isn't enforced is said when the definition is written, once."""
    spec = tree.get("spec") or {}
    found = [_CONVERSION] if (spec.get("conversion") or {}).get("strategy") == "Webhook" else []
    for index, version in enumerate(spec.get("versions") or ()):
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        path = f"spec.versions[{index}].schema.openAPIV3Schema"
        if schema is not None and not any(structural.mistyped(schema, path)):
            found += rules.unenforced(schema, path)
            found += validation.unenforced(schema, path)
            found += [f'unknown field "{where}"' for where in structural.unknown_words(schema, path)]
        for at, column in enumerate(version.get("additionalPrinterColumns") or ()):
            if why := jsonpath.problem(column.get("jsonPath") or ""):
                found.append(f"spec.versions[{index}].additionalPrinterColumns[{at}] stays empty: {why}")
    return found


# ── kinds ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def condition(tree: JSON, kind: str) -> JSON | None:
    return next((c for c in (tree.get("status") or {}).get("conditions") or () if c.get("type") == kind), None)


def is_true(tree: JSON, kind: str) -> bool:
    found = condition(tree, kind)
    return found is not None and found.get("status") == "True"


def with_condition(status: JSON, kind: str, value: bool, reason: str, message: str, now: Any) -> JSON:
    """`status` with this condition; its time changes only with its value."""
    before = next((c for c in status.get("conditions") or () if c["type"] == kind), None)
    word = "True" if value else "False"
    moved = before["lastTransitionTime"] if before and before["status"] == word else format_time(now)
    made = {"type": kind, "status": word, "reason": reason, "message": message, "lastTransitionTime": moved}
    return {**status, "conditions": [*(c for c in status.get("conditions") or () if c["type"] != kind), made]}


def version_order(name: str) -> tuple[int, int, int, str]:
    """Sorts versions the way clients should prefer them: v2, v1, v1beta2, v1alpha1, then any other by name."""
    found = _VERSION.fullmatch(name)
    if found is None:
        return (3, 0, 0, name)
    stage = {None: 0, "beta": 1, "alpha": 2}[found[2]]
    return (stage, -int(found[1]), -int(found[3] or 0), name)


def kinds(tree: JSON, *, unserved: bool = False) -> list[CustomKind]:
    """The versions of a definition that are served (or, with `unserved`, all) as kinds; the preferred first."""
    spec, status = tree["spec"], tree.get("status") or {}
    accepted = {**spec["names"], **(status.get("acceptedNames") or {})}
    storage = next((v["name"] for v in spec["versions"] if v.get("storage")), "")
    single = [v["name"] for v in spec["versions"]] == [storage]
    found = []
    for version in sorted(spec["versions"], key=lambda v: version_order(v["name"])):
        if not (version.get("served") or unserved):
            continue
        schema = version["schema"]["openAPIV3Schema"]
        subresources = version.get("subresources") or {}
        scale = subresources.get("scale")
        defaults = structural.has_defaults(schema)
        selectable = tuple(f["jsonPath"].lstrip(".") for f in version.get("selectableFields") or ())
        found.append(
            CustomKind(
                spec["group"],
                version["name"],
                accepted["kind"],
                accepted["plural"],
                accepted.get("singular") or accepted["kind"].lower(),
                spec["scope"] == "Namespaced",
                tuple(accepted.get("shortNames") or ()),
                tuple(accepted.get("categories") or ()),
                (*(["status"] if "status" in subresources else []), *(["scale"] if scale else [])),
                fields=selectable,
                deprecated=_deprecation(spec, version, accepted["kind"]),
                # Shown in another shape than stored: another version, or with defaults that came later.
                stored_as=None if single and not defaults else (spec["group"], accepted["plural"]),
                schema=schema,
                columns=tuple(version.get("additionalPrinterColumns") or ()),
                storage=storage,
                status="status" in subresources,
                scale=Scale(
                    *(_dotted(scale, w) for w in ("specReplicasPath", "statusReplicasPath", "labelSelectorPath"))
                )
                if scale
                else None,
                terminating=bool(tree["metadata"].get("deletionTimestamp")),
                defaults=defaults,
                rules=rules.has_rules(schema),
                list_kind=accepted.get("listKind") or f"{accepted['kind']}List",
            )
        )
    return found


def _dotted(scale: JSON, word: str) -> str:
    return (scale.get(word) or "").lstrip(".")


def _deprecation(spec: JSON, version: JSON, kind: str) -> str:
    if not version.get("deprecated"):
        return ""
    return version.get("deprecationWarning") or f"{spec['group']}/{version['name']} {kind} is deprecated"

"""The rules of Pod: its spec (shared with pod templates), what an update may change, its first status.

Source: pkg/registry/core/pod/strategy.go, pkg/apis/core/validation/validation.go.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from kubesvc.api import names, registry
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.api.quantity import quantity
from kubesvc.apiserver.admission import claim_template, containers, ephemeral, gates, metadata, pod_defaults, unserved
from kubesvc.apiserver.admission.causes import duplicate, forbidden, invalid, not_supported, required
from kubesvc.apiserver.admission.context import Context
from kubesvc.apiserver.admission.rules import Rules, keep_status

_NAMED = (("configMap", "name"), ("secret", "secretName"), ("hostPath", "path"), ("persistentVolumeClaim", "claimName"))
_RESTART = ("Always", "Never", "OnFailure")
_DNS = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
MAX_NAMESERVERS, MAX_SEARCHES, MAX_SEARCH_LENGTH = 3, 32, 2048  # of dnsConfig
_EFFECTS = ("NoExecute", "NoSchedule", "PreferNoSchedule")
_MAY_CHANGE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def prepare(new: JSON, old: JSON | None, context: Context) -> None:
    if old is not None and context.subresource == ephemeral.SUBRESOURCE:
        ephemeral.prepare(new, old)
    keep_status(new, old, context)
    if old is None:
        spec = new.get("spec") or {}
        new["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}
        if told := gates.condition(spec, context.now):
            new["status"]["conditions"] = told


def qos_class(spec: JSON) -> str:
    """Guaranteed: every container limits cpu and memory to what it requests. BestEffort: nothing said."""
    found = [c.get("resources") or {} for c in pod_defaults.containers(spec)]
    if not any(r.get("limits") or r.get("requests") for r in found):
        return "BestEffort"
    guaranteed = all(
        (r.get("limits") or {}).get(name) and (r.get("requests") or {}).get(name) == r["limits"][name]
        for r in found
        for name in ("cpu", "memory")
    )
    return "Guaranteed" if guaranteed else "Burstable"


def validate(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    if context.subresource == "status":
        return []
    if old is not None and context.subresource == ephemeral.SUBRESOURCE:
        return list(ephemeral.validate(new, old))
    spec = new.get("spec") or {}
    causes = list(validate_spec(spec, "spec"))
    causes += _references(spec)
    if old is None or context.subresource != "binding":
        causes += gates.validate(spec, "spec")
    if old is None:
        causes += claim_template.validate_names(new)
    if old is None and spec.get("ephemeralContainers"):
        causes.append(forbidden("spec.ephemeralContainers", "cannot be set on create"))
    if old is not None and context.subresource != "binding":
        causes += _update(spec, old.get("spec") or {})
    return causes


def validate_spec(spec: JSON, path: str) -> Iterator[Cause]:
    """A PodSpec, of a pod or in a template."""
    yield from containers.validate(spec, path)
    yield from containers.validate_seccomp(spec.get("securityContext") or {}, f"{path}.securityContext")
    yield from _volumes(spec, path)
    restart, dns = spec.get("restartPolicy") or "", spec.get("dnsPolicy") or ""
    if restart not in _RESTART:
        yield not_supported(f"{path}.restartPolicy", restart, _RESTART)
    if dns not in _DNS:
        yield not_supported(f"{path}.dnsPolicy", dns, _DNS)
    elif dns == "None" and not (spec.get("dnsConfig") or {}).get("nameservers"):
        why = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        yield required(f"{path}.dnsConfig.nameservers", why)
    yield from _dns_config(spec.get("dnsConfig") or {}, f"{path}.dnsConfig")
    for name, rule in (
        ("hostname", names.label),
        ("subdomain", names.label),
        ("nodeName", names.subdomain),
        ("serviceAccountName", names.subdomain),
    ):
        if value := spec.get(name):
            yield from (invalid(f"{path}.{name}", value, why) for why in rule(value))
    yield from metadata.validate_labels(spec.get("nodeSelector"), f"{path}.nodeSelector")
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline < 2**31:
        yield invalid(f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")
    yield from _tolerations(spec, path)
    yield from _host_aliases(spec, path)


def _dns_config(config: JSON, path: str) -> Iterator[Cause]:
    servers, searches = config.get("nameservers") or [], config.get("searches") or []
    if len(servers) > MAX_NAMESERVERS:
        yield invalid(f"{path}.nameservers", servers, f"must not have more than {MAX_NAMESERVERS} nameservers")
    for index, server in enumerate(servers):
        yield from (invalid(f"{path}.nameservers[{index}]", server, why) for why in names.address(server))
    if len(searches) > MAX_SEARCHES:
        yield invalid(f"{path}.searches", searches, f"must not have more than {MAX_SEARCHES} search paths")
    if len(" ".join(searches)) > MAX_SEARCH_LENGTH:
        why = f"must not have more than {MAX_SEARCH_LENGTH} characters (including spaces) in the search list"
        yield invalid(f"{path}.searches", searches, why)
    for index, search in enumerate(searches):
        if search != ".":
            plain = search.removesuffix(".").replace("_", "-")
            yield from (invalid(f"{path}.searches[{index}]", search, why) for why in names.subdomain(plain))
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            yield required(f"{path}.options[{index}]", "must not be empty")


def _volumes(spec: JSON, path: str) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or ()):
        here = f"{path}.volumes[{index}]"
        name = volume.get("name") or ""
        if not name:
            yield required(f"{here}.name")
        else:
            yield from (invalid(f"{here}.name", name, why) for why in names.label(name))
            if name in seen:
                yield duplicate(f"{here}.name", name)
        seen.add(name)
        sources = [k for k in volume if k != "name" and volume[k] is not None]
        for extra in sources[1:]:
            yield forbidden(f"{here}.{extra}", "may not specify more than 1 volume type")
        for kind, part in _NAMED:
            if kind in sources[:1] and not volume[kind].get(part):
                yield required(f"{here}.{kind}.{part}")
        if sources[:1] == ["image"]:
            yield from containers.validate_pull_policy(volume["image"], f"{here}.image.pullPolicy", "pullPolicy")
        limit = volume["emptyDir"].get("sizeLimit") if sources[:1] == ["emptyDir"] else None
        if limit is not None and (amount := quantity(limit)) is not None and amount < 0:
            yield forbidden(f"{here}.emptyDir.sizeLimit", "SizeLimit field must be a valid resource quantity")
        if sources[:1] == ["ephemeral"]:
            yield from claim_template.validate_ephemeral(volume["ephemeral"], f"{here}.ephemeral")


def _references(spec: JSON) -> Iterator[Cause]:
    """A template may leave to others which image a volume is; a pod may not."""
    for index, volume in enumerate(spec.get("volumes") or ()):
        if volume.get("image") is not None and not volume["image"].get("reference"):
            yield required(f"spec.volumes[{index}].image.reference")


def _tolerations(spec: JSON, path: str) -> Iterator[Cause]:
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        here = f"{path}.tolerations[{index}]"
        key, operator = toleration.get("key") or "", toleration.get("operator") or "Equal"
        if key:
            yield from (invalid(f"{here}.key", key, why) for why in names.qualified_name(key))
        elif operator != "Exists":
            why = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            yield invalid(f"{here}.operator", operator, why)
        if operator not in ("Equal", "Exists"):
            yield not_supported(f"{here}.operator", operator, ("Equal", "Exists"))
        elif operator == "Exists" and toleration.get("value"):
            yield invalid(f"{here}.operator", toleration["value"], "value must be empty when `operator` is 'Exists'")
        effect = toleration.get("effect") or ""
        if effect and effect not in _EFFECTS:
            yield not_supported(f"{here}.effect", effect, _EFFECTS)
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            yield invalid(f"{here}.effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")


def _host_aliases(spec: JSON, path: str) -> Iterator[Cause]:
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        here = f"{path}.hostAliases[{index}]"
        yield from (invalid(f"{here}.ip", alias.get("ip"), why) for why in names.address(alias.get("ip") or ""))
        for hostname in alias.get("hostnames") or ():
            yield from (invalid(f"{here}.hostnames", hostname, why) for why in names.subdomain(hostname))


def _update(spec: JSON, before: JSON) -> Iterator[Cause]:
    for group in ("containers", "initContainers"):
        if len(spec.get(group) or ()) != len(before.get(group) or ()):
            yield forbidden(f"spec.{group}", "pod updates may not add or remove containers")
            return
    yield from gates.added(spec, before)
    gone = [t for t in before.get("tolerations") or () if not _still_there(t, spec.get("tolerations") or ())]
    if gone:
        yield forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
    masked = copy.deepcopy(spec)
    for group in ("containers", "initContainers"):
        for now, then in zip(masked.get(group) or (), before.get(group) or (), strict=True):
            now["image"] = then.get("image")
    for name in ("activeDeadlineSeconds", "tolerations", "schedulingGates"):
        _mask(masked, before, name)
    if (before.get("terminationGracePeriodSeconds") or 0) < 0 and spec.get("terminationGracePeriodSeconds") == 1:
        _mask(masked, before, "terminationGracePeriodSeconds")
    changed = list(_differences(masked, before, "spec"))
    if changed:
        yield forbidden("spec", f"{_MAY_CHANGE}\nchanged: {', '.join(changed)}")


def _mask(masked: JSON, before: JSON, name: str) -> None:
    masked.pop(name, None)
    if name in before:
        masked[name] = before[name]


def _still_there(toleration: JSON, found: Any) -> bool:
    def identity(t: JSON) -> JSON:
        return {k: v for k, v in t.items() if k != "tolerationSeconds"}

    return any(identity(t) == identity(toleration) for t in found)


def _differences(new: Any, old: Any, path: str) -> Iterator[str]:
    """Paths whose values differ; empty and absent are the same."""
    if isinstance(new, dict) and isinstance(old, dict):
        for name in sorted({*new, *old}):
            yield from _differences(new.get(name), old.get(name), f"{path}.{name}")
    elif isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        for index, (now, then) in enumerate(zip(new, old, strict=True)):
            yield from _differences(now, then, f"{path}[{index}]")
    elif new != old and (new or old):
        yield path


def warnings(tree: JSON) -> list[str]:
    return list(unserved.in_pod_spec(tree.get("spec") or {}, "spec"))


RULES = Rules(default=pod_defaults.default, prepare=prepare, validate=validate, warnings=warnings, counted=True)
ADMITS = ((registry.POD, RULES),)

"""What this server serves, in the two shapes clients ask for: a document a group and version, or everything at once.

/api  /apis  /apis/GROUP  /api/v1  /apis/GROUP/VERSION            legacy
/api  /apis  with as=APIGroupDiscoveryList in Accept (KEP-3352)   aggregated: two requests are enough
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

from kubesvc.api.errors import NotAcceptable
from kubesvc.api.meta import JSON
from kubesvc.api.registry import KINDS, Kind
from kubesvc.apiserver import encode
from kubesvc.apiserver.custom.definition import version_order
from kubesvc.apiserver.negotiation import Representation
from kubesvc.apiserver.served import served
from kubesvc.client.transport import Request, Response


def answer(request: Request, custom: Sequence[Kind] = ()) -> Response | None:
    """The discovery document at this path, or None where there is none. `custom` are kinds beside the built-in ones."""
    parts = request.path.strip("/").split("/")
    if parts in (["api"], ["apis"]):
        form = encode.representation(request)
        if form.form == "aggregated":
            return _aggregated(form, custom, legacy=parts == ["api"])
        return encode.tree(_versions() if parts == ["api"] else _group_list(custom))
    _refuse_aggregated(request)
    match parts:
        case ["api", version]:
            return _resources("", version, ())
        case ["apis", group]:
            return encode.tree(_group(group, custom)) if group in _all_groups(custom) else None
        case ["apis", group, version]:
            return _resources(group, version, custom)
    return None


def _refuse_aggregated(request: Request) -> None:
    if encode.representation(request).form == "aggregated":
        raise NotAcceptable("aggregated discovery is served at /api and /apis alone")


@cache
def _groups() -> dict[str, tuple[str, ...]]:
    """Group -> its versions, without the core group."""
    found: dict[str, dict[str, None]] = {}
    for kind in KINDS.values():
        if kind.group:
            found.setdefault(kind.group, {})[kind.version] = None
    return {group: tuple(versions) for group, versions in found.items()}


def _all_groups(custom: Sequence[Kind]) -> dict[str, tuple[str, ...]]:
    """With the custom kinds' groups, whose versions come in the order clients should prefer them."""
    if not custom:
        return _groups()
    found = {group: dict.fromkeys(versions) for group, versions in _groups().items()}
    for kind in sorted(custom, key=lambda kind: (kind.group, version_order(kind.version))):
        found.setdefault(kind.group, {})[kind.version] = None
    return {group: tuple(versions) for group, versions in found.items()}


def _kinds(group: str, version: str, custom: Sequence[Kind]) -> list[Kind]:
    return [kind for kind in (*KINDS.values(), *custom) if (kind.group, kind.version) == (group, version)]


# ── legacy ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _versions() -> JSON:
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def _group(group: str, custom: Sequence[Kind]) -> JSON:
    versions = [{"groupVersion": f"{group}/{version}", "version": version} for version in _all_groups(custom)[group]]
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": group,
        "versions": versions,
        "preferredVersion": versions[0],
    }


def _group_list(custom: Sequence[Kind]) -> JSON:
    found = [_group(group, custom) for group in _all_groups(custom)]
    groups = [{k: v for k, v in group.items() if k not in ("kind", "apiVersion")} for group in found]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def _resources(group: str, version: str, custom: Sequence[Kind]) -> Response | None:
    kinds = _kinds(group, version, custom)
    if not kinds:
        return None
    return encode.tree(
        {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{group}/{version}" if group else version,
            "resources": [resource for kind in kinds for resource in _resource(kind)],
        }
    )


def _resource(kind: Kind) -> Iterable[JSON]:
    resource: JSON = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": sorted(kind.verbs),
    }
    if kind.short_names:
        resource["shortNames"] = list(kind.short_names)
    if kind.categories:
        resource["categories"] = list(kind.categories)
    yield resource
    for name, sub in served(kind):
        entry: JSON = {
            "name": f"{kind.plural}/{name}",
            "singularName": "",
            "namespaced": kind.namespaced,
            "kind": sub.kind or kind.kind,
            "verbs": list(sub.verbs),
        }
        if sub.group:
            entry |= {"group": sub.group, "version": sub.version}
        yield entry


# ── aggregated ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _aggregated(form: Representation, custom: Sequence[Kind], *, legacy: bool) -> Response:
    groups = {"": ("v1",)} if legacy else _all_groups(custom)
    items = [
        {
            "metadata": {"name": group} if group else {},
            "versions": [
                {
                    "version": version,
                    "freshness": "Current",
                    "resources": [_aggregated_resource(kind) for kind in _kinds(group, version, custom)],
                }
                for version in versions
            ],
        }
        for group, versions in groups.items()
    ]
    response = encode.tree(
        {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": f"apidiscovery.k8s.io/{form.version}",
            "metadata": {},
            "items": items,
        }
    )
    response.content_type = f"application/json;g=apidiscovery.k8s.io;v={form.version};as=APIGroupDiscoveryList"
    return response


def _aggregated_resource(kind: Kind) -> JSON:
    gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    resource: JSON = {
        "resource": kind.plural,
        "responseKind": gvk,
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": sorted(kind.verbs),
        "shortNames": list(kind.short_names),
        "categories": list(kind.categories),
        "subresources": [
            {
                "subresource": name,
                "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind} if sub.kind else gvk,
                "verbs": list(sub.verbs),
            }
            for name, sub in served(kind)
        ],
    }
    return {field: value for field, value in resource.items() if value}

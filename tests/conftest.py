"""Fixtures that many tests share: one box of three nodes for the whole run."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings

from support.box import fresh_box

# Everybody's run tries the same examples, however slow the machine; `--hypothesis-profile=explore` tries others.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("same")

NAMES = (
    *("--dns-domain", "cluster.local,corp.internal"),
    *("--public-zone", "shop.example"),
    *("--transfer-to", "10.244.0.0/16"),
)
"""As the guide's pages on names have it."""

_numbers = itertools.count()


@pytest.fixture(scope="session")
def three_nodes(tmp_path_factory):
    """A running box with three nodes. Tests on it use a namespace of their own."""
    with fresh_box(tmp_path_factory.mktemp("three") / "box") as box:
        box.up("--nodes", "3", *NAMES)
        yield box


@pytest.fixture
def namespace(three_nodes):
    """A fresh namespace in the shared box, deleted afterwards without waiting."""
    name = f"n{next(_numbers)}"
    three_nodes.kubectl("create", "namespace", name)
    yield name
    three_nodes.kubectl("delete", "namespace", name, "--wait=false")

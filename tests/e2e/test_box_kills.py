"""Whichever process of a box is killed, at whatever moment: pods, addresses and endpoints stay what they were."""

from __future__ import annotations

from random import Random

from support import boxkills
from support.box import fresh_box

KILLS = 16


def test_killed_processes_change_nothing_that_matters(tmp_path):
    """No container is restarted, no address changes, clients on both nodes are answered again, the store is sound."""
    with fresh_box(tmp_path / "box") as box:
        box.up("--nodes", "2")
        boxkills.begin(box)
        before = boxkills.state(box)
        found = boxkills.kill(box, KILLS, Random())
        boxkills.settle(box, before, found)
        assert sum(found.kills.values()) == KILLS
        assert found.good > 10 * KILLS
        box.kubesvc("doctor")

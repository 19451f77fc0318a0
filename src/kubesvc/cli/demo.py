"""`kubesvc demo`."""

from __future__ import annotations

import click

from kubesvc.demo.performance import perform
from kubesvc.demo.stage import BrokenPromise


@click.command()
@click.option("--nodes", type=click.IntRange(1, 10), default=3, show_default=True, help="How many nodes.")
@click.option("--keep", is_flag=True, help="Leave the box running.")
def demo(nodes: int, keep: bool) -> None:
    """Show what a Service does, on three nodes, with real traffic.

    Starts a box of its own, applies the shop (examples/shop), shows each promise of a Service with the commands that
    were run and what came back, and cleans up. Exit status 1 when a promise doesn't hold.
    """
    try:
        perform(nodes, keep)
    except BrokenPromise as broken:
        raise click.ClickException(str(broken)) from broken

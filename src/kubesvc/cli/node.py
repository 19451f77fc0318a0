"""`kubesvc node`: nodes of a box that runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from kubesvc.box import control
from kubesvc.box.definition import AddedNode, name_flag
from kubesvc.box.errors import BoxError
from kubesvc.cli.options import box_or_fail, which_box


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def node() -> None:
    """Add nodes to a running box, and remove them."""


@node.command()
@which_box
@click.option("--zone", default="", help="The zone it is in: label topology.kubernetes.io/zone.")
@click.option("--label", "labels", metavar="KEY=VALUE", multiple=True, help="A label of the node; repeatable.")
@click.argument("node_name", metavar="NAME")
def add(name: str, directory: Path | None, zone: str, labels: tuple[str, ...], node_name: str) -> None:
    """Add the node NAME, and wait until it is ready. It stays part of the box."""
    box = box_or_fail(name, directory)
    try:
        pairs = dict(control.parse_label(text) for text in labels)
        control.ask(box, control.Request(add=AddedNode(name=node_name, zone=control.parse_zone(zone), labels=pairs)))
        asyncio.run(control.until_ready(box, node_name))
    except BoxError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"node/{node_name} added")


@node.command()
@which_box
@click.argument("node_name", metavar="NAME")
def remove(name: str, directory: Path | None, node_name: str) -> None:
    """Remove the node NAME with all that runs on it. `kubectl drain NAME` before lets its pods end in order."""
    box = box_or_fail(name, directory)
    try:
        control.ask(box, control.Request(remove=node_name))
        asyncio.run(control.forget(box, node_name))
    except BoxError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"node/{node_name} removed; `kubesvc node add{name_flag(name)} {node_name}` brings it back, empty")

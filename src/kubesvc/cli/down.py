"""`kubesvc down`."""

from __future__ import annotations

from pathlib import Path

import click

from kubesvc.box import lifecycle
from kubesvc.box.definition import Box
from kubesvc.box.errors import BoxError
from kubesvc.cli.options import box_or_fail, which_box
from kubesvc.cli.progress import show


def take_down(box: Box, *, purge: bool) -> None:
    """End the box and say so; BoxError becomes a ClickException."""
    try:
        lifecycle.down(box, purge=purge, show=show)
    except BoxError as error:
        raise click.ClickException(str(error)) from error
    kept = "" if purge else f" Its data is kept in {box.path}; `--purge` removes it."
    click.echo(f"Box {box.name!r} is down.{kept}")


@click.command()
@which_box
@click.option("--purge", is_flag=True, help="Remove the box's data too: objects, certificates, logs.")
def down(name: str, directory: Path | None, purge: bool) -> None:
    """Stop a box and leave nothing of it behind: no process, namespace, interface, mount or rule."""
    take_down(box_or_fail(name, directory), purge=purge)

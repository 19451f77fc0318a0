"""`kubesvc backup`."""

from __future__ import annotations

from pathlib import Path

import click

from kubesvc.cli.options import box_or_fail, which_box
from kubesvc.store import backup as files
from kubesvc.store.protocol import StoreError


@click.command()
@which_box
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def backup(name: str, directory: Path | None, file: Path) -> None:
    """Copy a box's objects into a file.

    FILE must not be there yet; the box may run meanwhile. The copy is one moment's state. Certificates and the options
    of `up` are not in it.
    """
    box = box_or_fail(name, directory)
    try:
        count = files.backup(box.objects, file)
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{file}: {count} objects and claims, {file.stat().st_size / 1e6:.1f} MB")

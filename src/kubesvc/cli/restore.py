"""`kubesvc restore`."""

from __future__ import annotations

from pathlib import Path

import click

from kubesvc.box import lock
from kubesvc.box.definition import name_flag
from kubesvc.cli.options import box_or_fail, which_box
from kubesvc.store import backup as files
from kubesvc.store.protocol import StoreError


@click.command()
@which_box
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def restore(name: str, directory: Path | None, file: Path) -> None:
    """Replace a stopped box's objects with a backup.

    FILE is one that `kubesvc backup` wrote. What was there is kept beside, as objects.db.before-restore. Refused while
    the box runs.
    """
    box = box_or_fail(name, directory)
    if lock.held(box.run_path):
        down = f"kubesvc down{name_flag(name)}"
        raise click.ClickException(f"box {name!r} is running: `{down}` first, then restore, then `up`")
    try:
        count = files.restore(file, box.objects)
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"{box.objects}: {count} objects and claims restored; the ones before are in {box.objects}.before-restore"
    )

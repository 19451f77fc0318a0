"""Options that several commands share, and how a box is found from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from kubesvc.box.definition import DEFAULT_STATE, Box, find, names
from kubesvc.box.errors import BoxError

F = TypeVar("F", bound=Callable[..., None])


def which_box(command: F) -> F:
    """--name and --dir, as every command on a box takes them."""
    directory = click.option(
        "--dir",
        "directory",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="KUBESVC_DIR",
        help=f"Where the box's data is.  [default: {DEFAULT_STATE}/NAME]",
    )
    name = click.option("--name", default="default", show_default=True, help="The box's name; boxes run side by side.")
    return name(directory(command))


def box_or_fail(name: str, directory: Path | None) -> Box:
    """The box, or a ClickException that says which ones there are."""
    try:
        box = find(name, directory.absolute() if directory else None)
    except BoxError as error:
        raise click.ClickException(str(error)) from error
    if box is None:
        others = names()
        known = f"; boxes here: {', '.join(others)}" if others else ""
        raise click.ClickException(f"there is no box {name!r}{known}. Start one with `kubesvc up --name {name}`")
    return box

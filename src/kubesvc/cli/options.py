"""Options that several commands share, and how a box is found from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from kubesvc.box.definition import DEFAULT_STATE, Box, find, name_flag, names
from kubesvc.box.errors import BoxError
from kubesvc.dns.settings import listed

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
    name = click.option(
        "--name",
        default="default",
        show_default=True,
        envvar="KUBESVC_NAME",
        help="The box's name; boxes run side by side.",
    )
    return name(directory(command))


def _listed(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Values that may hold several, separated by commas; '' alone stays, and means none."""
    return values if values == ("",) else listed(values)


def dns_settings(command: F) -> F:
    """What is said about DNS, as `up` and `dns` take it. Each flag may be repeated."""
    flags = (
        ("--dns-domain", "NAME,...", "DNS zone of the cluster; more than one: the others have its names too.", _listed),
        ("--forward", "ADDRESS", "DNS server for names outside the cluster, also tls://ADDRESS#NAME.", None),
        ("--zone", "NAME=ADDRESS", "DNS server for the names of one zone, such as corp.example=10.0.0.53.", None),
        ("--host", "NAME=ADDRESS", "Address of a name outside the cluster, whatever other servers say.", None),
        (
            "--public-zone",
            "NAME[=SERVER,...]",
            "Zone that is answered for with the names LoadBalancer Services ask for (annotation kubesvc.dev/hostname); "
            "SERVERs are its public name servers.",
            None,
        ),
        ("--transfer-to", "CIDR,...", "DNS servers that may fetch whole zones (AXFR).  [default: none]", _listed),
        ("--notify", "ADDRESS,...", "DNS servers that are told when a zone has changed.", _listed),
    )
    for flag, metavar, help_text, callback in reversed(flags):
        command = click.option(flag, metavar=metavar, multiple=True, callback=callback, help=help_text)(command)
    return command


def box_or_fail(name: str, directory: Path | None) -> Box:
    """The box, or a ClickException that says which ones there are."""
    try:
        box = find(name, directory.absolute() if directory else None)
    except BoxError as error:
        raise click.ClickException(str(error)) from error
    if box is None:
        others = names()
        choose = f"boxes here: {', '.join(others)}; choose with --name or KUBESVC_NAME, or start" if others else "start"
        raise click.ClickException(f"there is no box {name!r}; {choose} one with `kubesvc up{name_flag(name)}`")
    return box

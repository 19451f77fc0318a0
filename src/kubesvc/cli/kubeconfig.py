"""`kubesvc kubeconfig`."""

from __future__ import annotations

from pathlib import Path

import click

from kubesvc.cli.options import box_or_fail, which_box


@click.command()
@which_box
def kubeconfig(name: str, directory: Path | None) -> None:
    """Print the path of a box's kubeconfig, for `export KUBECONFIG=$(kubesvc kubeconfig)`."""
    click.echo(box_or_fail(name, directory).kubeconfig)

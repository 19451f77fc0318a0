"""How a step is shown: what was done, and how long it took."""

from __future__ import annotations

import click

from kubesvc.box.lifecycle import Progress


def show(progress: Progress) -> None:
    if progress.warning:
        click.echo(f"  {click.style('!', fg='yellow')} {progress.warning}", err=True)
        return
    click.echo(f"  {click.style('✓', fg='green')} {progress.step:<44} {progress.seconds:6.2f} s")

"""`kubesvc doctor`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from kubesvc.apiserver.doctor import Finding, examine, outside_range, summary
from kubesvc.box.definition import Box, name_flag
from kubesvc.cli.options import box_or_fail, which_box
from kubesvc.store.backup import snapshot
from kubesvc.store.protocol import StoreError, Versioned
from kubesvc.store.sqlite import SqliteStore


def _read(box: Box) -> list[Versioned]:
    try:
        return snapshot(box.objects)
    except StoreError as error:
        raise click.ClickException(str(error)) from error


async def _repair(box: Box, findings: list[Finding]) -> None:
    store = SqliteStore(box.objects)
    try:
        for finding in findings:
            if finding.repair:
                await store.commit(finding.repair)
                click.echo(f"repaired: {finding.what}")
    finally:
        await store.close()


@click.command()
@which_box
@click.option("--repair", is_flag=True, help="Let go of claims that are nobody's. The box must be down.")
def doctor(name: str, directory: Path | None, repair: bool) -> None:
    """Check that claims and Services agree: no address or port leaked or doubled.

    Every address and port claimed must belong to exactly one Service, and every one that a Service holds be claimed.
    Reads the box's store, whether or not the box runs. Exit status: 0 when all is well, 1 when something is wrong.
    """
    box = box_or_fail(name, directory)
    findings = examine(_read(box))
    if repair and findings:
        try:
            asyncio.run(_repair(box, findings))
        except StoreError as error:
            raise click.ClickException(f"{error}. `kubesvc down{name_flag(name)}` first") from error
        findings = examine(_read(box))
    for finding in findings:
        click.echo(f"{finding.what}\n    {finding.remedy}")
    items = _read(box)
    if findings:
        raise click.ClickException(f"{len(findings)} things are wrong ({summary(items)})")
    first, last = box.port_range
    for outside in outside_range(items, first, last):
        click.echo(
            f"node port {outside} is outside --node-port-range {first}-{last}: kept as long as the Service has it"
        )
    click.echo(f"All is well: {summary(items)}, each claimed by the one who holds it.")

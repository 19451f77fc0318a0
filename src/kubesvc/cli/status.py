"""`kubesvc status`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kubesvc.box.definition import name_flag
from kubesvc.box.overview import Overview, ServiceLine, overview
from kubesvc.cli.options import box_or_fail, which_box


def _age(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for header in headers:
        table.add_column(header, no_wrap=True)
    return table


def _print(console: Console, found: Overview) -> None:
    processes = _table("PROCESS", "PID", "STATE", "FOR", "RESTARTS", "LAST EXIT")
    for process in found.processes:
        style = "" if process.state == "running" else "red"
        age = _age(process.age) if process.age else ""
        pid = str(process.pid or "")
        processes.add_row(process.name, pid, process.state, age, str(process.restarts), process.last_exit, style=style)
    console.print(processes)
    if found.trouble:
        console.print(f"\n[red]The API doesn't answer:[/] {found.trouble}")
        return
    nodes = _table("NODE", "STATE", "ADDRESS", "PODS", "NAMESPACE")
    for node in found.nodes:
        state = "Ready" if node.ready else "NotReady"
        nodes.add_row(
            node.name,
            state,
            "\n".join(node.addresses),
            "\n".join(node.pod_cidrs),
            node.namespace,
            style="" if node.ready else "red",
        )
    services = _table("SERVICE", "TYPE", "READY", "FROM PODS", "FROM THIS MACHINE")
    for service in found.services:
        name = f"{service.namespace}/{service.name}"
        inside, outside = (escape("\n".join(where)) for where in (service.inside, service.outside))
        style = "red" if service.serving.wrong else ""
        services.add_row(name, service.type, service.serving.ready, inside, outside, style=style)
    console.print()
    console.print(nodes)
    console.print()
    console.print(services)
    _print_remarks(console, "WHAT IS WRONG", [(line, text) for line in found.services for text in line.serving.wrong])
    _print_remarks(console, "WORTH A LOOK", [(line, text) for line in found.services for text in line.serving.doubtful])
    if found.dns_records:
        records = _table("SERVICE", "RECORD FOR A NAME OF YOURS")
        for row in found.dns_records:
            records.add_row(*row)
        console.print()
        console.print(records)
        if found.name_server:
            console.print(f"\nHost names are known to {found.name_server}: dig +short @{found.name_server} HOSTNAME")
    if found.public_records:
        console.print("\n[bold]PUBLIC NAMES[/]")
        console.print(*found.public_records, sep="\n", markup=False)
    if found.published:
        published = _table("PUBLISHED", "NODE PORT", "SERVICE")
        for line in found.published:
            published.add_row(line.host, line.node_port, line.service or "(no Service has this node port)")
        console.print()
        console.print(published)


def _print_remarks(console: Console, title: str, remarks: list[tuple[ServiceLine, str]]) -> None:
    if remarks:
        console.print(f"\n[bold]{title}[/]")
    for line, text in remarks:
        console.print(f"service {line.namespace}/{line.name}: {text}", markup=False)


@click.command()
@which_box
def status(name: str, directory: Path | None) -> None:
    """Show a box's processes, nodes and Services, where each Service answers, and why it doesn't.

    Exit status: 0 when the box runs and is ready, 3 when it doesn't.
    """
    box = box_or_fail(name, directory)
    found = asyncio.run(overview(box))
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
    if not found.running:
        console.print(
            f"Box {box.name!r} is not running; its data is in {box.path}. Start it with `kubesvc up{name_flag(name)}`."
        )
        raise click.exceptions.Exit(3)
    state = "ready" if found.ready else "starting"
    console.print(f"Box [bold]{box.name}[/] is {state}; kubeconfig {box.kubeconfig}\n")
    _print(console, found)
    if not found.ready:
        raise click.exceptions.Exit(3)

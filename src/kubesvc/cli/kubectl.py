"""`kubesvc apply`, `get`, `delete`, `logs` and `exec`: the few verbs of kubectl one needs on a machine without it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import click

from kubesvc.api.errors import ApiError, NotFound
from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.cli.options import box_or_fail, which_box
from kubesvc.client import kubeconfig
from kubesvc.client.kubeconfig import KubeconfigError
from kubesvc.client.session import Session, Unreachable
from kubesvc.kubectl import manifests, printing, streams, verbs
from kubesvc.kubectl.kinds import Kinds
from kubesvc.kubectl.manifests import KubectlError

FILES = click.option(
    "-f", "--filename", "files", multiple=True, help="A manifest, a directory of them, or - for standard input."
)
NAMESPACE = click.option("-n", "--namespace", default="default", show_default=True, help="The namespace to work in.")
SELECTOR = click.option("-l", "--selector", default="", help="Only objects with these labels, as app=web.")


def _run(name: str, directory: Path | None, work: Callable[[Session], Awaitable[int | None]]) -> None:
    """Do `work` with a session to the box, or to the cluster $KUBECONFIG names; exits with its code."""
    given = os.environ.get("KUBECONFIG", "")
    path = Path(given) if given and name == "default" and directory is None else box_or_fail(name, directory).kubeconfig

    async def whole() -> int | None:
        session = kubeconfig.load(path)
        try:
            return await work(session)
        finally:
            await session.close()

    try:
        code = asyncio.run(whole())
    except ApiError as error:
        click.echo(verbs.explained(error), err=True)
        raise click.exceptions.Exit(1) from error
    except (KubectlError, KubeconfigError, Unreachable) as error:
        text = str(error)
        click.echo(text if text.startswith("error:") else f"error: {text}", err=True)
        raise click.exceptions.Exit(1) from error
    if code:
        raise click.exceptions.Exit(code)


def _read(files: tuple[str, ...]) -> list[JSON]:
    if not files:
        raise KubectlError("must specify -f FILE")
    return [tree for file in files for tree in manifests.read(file, sys.stdin)]


@click.command()
@which_box
@FILES
@NAMESPACE
def apply(name: str, directory: Path | None, files: tuple[str, ...], namespace: str) -> None:
    """Make objects be as a manifest says, as `kubectl apply --server-side` does."""

    async def work(session: Session) -> int:
        failed, kinds = 0, Kinds(session)
        for tree in _read(files):
            try:
                click.echo(await verbs.apply(session, await kinds.of(tree), tree, namespace))
            except ApiError as error:
                click.echo(verbs.explained(error), err=True)
                failed = 1
        return failed

    _run(name, directory, work)


@click.command()
@which_box
@click.argument("what", nargs=-1, required=True)
@NAMESPACE
@SELECTOR
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Of every namespace.")
@click.option("-o", "--output", type=click.Choice(["wide", "json", "yaml", "name"]), help="How to print.")
@click.option("--no-headers", is_flag=True, help="No line of headers.")
def get(
    name: str,
    directory: Path | None,
    what: tuple[str, ...],
    namespace: str,
    selector: str,
    everywhere: bool,
    output: str | None,
    no_headers: bool,
) -> None:
    """List objects: KIND[,KIND …] [NAME …], or KIND/NAME …"""

    async def work(session: Session) -> int:
        query = {"labelSelector": selector} if selector else {}
        asked: dict[Kind, list[str]] = {}
        for kind, one in await Kinds(session).wanted(what):
            asked.setdefault(kind, []).append(one)
        failed = 0
        read: list[tuple[Kind, JSON]] = []
        for kind, names in asked.items():
            where = "" if everywhere or not kind.namespaced else namespace
            reading = verbs.tree if output in ("json", "yaml", "name") else verbs.table
            for one in names:
                try:
                    read.append((kind, await reading(session, kind, where, one, query)))
                except ApiError as error:
                    click.echo(verbs.explained(error), err=True)
                    failed = 1
        if output in ("json", "yaml", "name"):
            click.echo(printing.objects(read, output) if read else "", nl=False)
            return failed
        tables = []
        for kind in asked:
            found = [part for of, part in read if of == kind]
            rows = [row for part in found for row in part["rows"]]
            if rows:
                lines = printing.rows(
                    found[0] | {"rows": rows},
                    wide=output == "wide",
                    headers=not no_headers,
                    everywhere=everywhere and kind.namespaced,
                    kind=kind if len(asked) > 1 else None,
                )
                tables.append("".join(line + "\n" for line in lines))
        click.echo("\n".join(tables), nl=False)
        if read and not tables:
            inside = not everywhere and any(kind.namespaced for kind in asked)
            click.echo(f"No resources found in {namespace} namespace." if inside else "No resources found", err=True)
        return failed

    _run(name, directory, work)


@click.command()
@which_box
@click.argument("what", nargs=-1)
@FILES
@NAMESPACE
@SELECTOR
@click.option("--all", "all_", is_flag=True, help="Every object of the kind in the namespace.")
@click.option("--grace-period", "grace", type=int, help="Seconds the pods get to end.")
@click.option("--wait/--no-wait", default=True, help="Return once they are gone.  [default: wait]")
@click.option("--ignore-not-found", is_flag=True, help="What isn't there is no error.")
def delete(
    name: str,
    directory: Path | None,
    what: tuple[str, ...],
    files: tuple[str, ...],
    namespace: str,
    selector: str,
    all_: bool,
    grace: int | None,
    wait: bool,
    ignore_not_found: bool,
) -> None:
    """Delete objects: those of a manifest, KIND NAME …, KIND/NAME …, or KIND with --all or -l."""

    async def work(session: Session) -> int:
        wanted, kinds = [], Kinds(session)
        for tree in _read(files) if files else []:
            kind = await kinds.of(tree)
            wanted.append((kind, verbs.placed(tree, kind, namespace), tree["metadata"]["name"]))
        for kind, one in await kinds.wanted(what) if what else []:
            where = namespace if kind.namespaced else ""
            if one:
                wanted.append((kind, where, one))
            elif all_ or selector:
                query = {"labelSelector": selector} if selector else {}
                found = await verbs.tree(session, kind, where, "", query)
                wanted += [(kind, where, item["metadata"]["name"]) for item in found["items"]]
            else:
                raise KubectlError("resource(s) were provided, but no name was specified")
        failed = 0
        for kind, where, one in wanted:
            try:
                click.echo(await verbs.delete(session, kind, where, one, grace=grace, wait=wait))
            except ApiError as error:
                if not (ignore_not_found and error.code == 404):
                    click.echo(verbs.explained(error), err=True)
                    failed = 1
        return failed

    _run(name, directory, work)


@click.command()
@which_box
@click.argument("pod")
@NAMESPACE
@click.option("-c", "--container", default="", help="Which container of the pod.")
@click.option("-f", "--follow", is_flag=True, help="Go on as the log grows.")
@click.option("-p", "--previous", is_flag=True, help="Of the attempt before this one.")
@click.option("--tail", type=int, help="The last lines alone.")
@click.option("--since", help="Since this long ago, as 5s, 2m or 3h.")
@click.option("--timestamps", is_flag=True, help="When, before each line.")
def logs(
    name: str, directory: Path | None, pod: str, namespace: str, container: str, follow: bool, previous: bool,
    tail: int | None, since: str | None, timestamps: bool,
) -> None:  # fmt: skip
    """Print the log of a container of POD, or of one pod of KIND/NAME."""
    flags = {"follow": follow, "previous": previous, "timestamps": timestamps}
    query = {key: "true" for key, value in flags.items() if value}
    query |= {"tailLines": str(tail)} if tail is not None else {}
    if since:
        unit = {"s": 1, "m": 60, "h": 3600}.get(since[-1])
        if unit is None or not since[:-1].isdigit():
            raise click.ClickException(f"--since {since!r}: expected a number and s, m or h, such as 5m")
        query["sinceSeconds"] = str(int(since[:-1]) * unit)

    async def work(session: Session) -> None:
        found = await verbs.target(session, namespace, pod)
        try:
            query["container"], told = await verbs.chosen(session, namespace, found, container)
        except NotFound as error:
            raise KubectlError(f'error from server (NotFound): {error} in namespace "{namespace}"') from error
        if told:
            click.echo(told, err=True)
        async for data in verbs.logs(session, namespace, found, query):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    _run(name, directory, work)


class _BeforeDashes(click.Command):
    """Options may stand on either side of POD where `--` says where the command begins; else they are the command's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.allow_interspersed_args = "--" in args
        ctx.ignore_unknown_options = not ctx.allow_interspersed_args
        return super().parse_args(ctx, args)


@click.command("exec", cls=_BeforeDashes)
@which_box
@NAMESPACE
@click.option("-c", "--container", default="", help="Which container of the pod.")
@click.option("-i", "--stdin", "with_stdin", is_flag=True, help="Pass standard input on.")
@click.argument("pod")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    name: str,
    directory: Path | None,
    pod: str,
    namespace: str,
    container: str,
    with_stdin: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND in a container of POD, or of one pod of KIND/NAME; exits with its exit code."""
    words = command[1:] if command[0] == "--" else command

    async def work(session: Session) -> int:
        found = await verbs.target(session, namespace, pod)
        inside, told = await verbs.chosen(session, namespace, found, container)
        if told:
            click.echo(told, err=True)
        path = verbs.exec_path(namespace, found, inside, words, stdin=with_stdin)
        source = _standard_input() if with_stdin else None
        code, said = await streams.execute(session, path, source, sys.stdout.buffer, sys.stderr.buffer)
        if said:
            click.echo(said, err=True)
        return code

    _run(name, directory, work)


async def _standard_input() -> AsyncIterator[bytes]:
    while data := await asyncio.to_thread(os.read, 0, 1 << 15):
        yield data

"""`kubesvc image`: the images of a box."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import click

from kubesvc.box.definition import Box
from kubesvc.box.nodeprocesses import docker_config
from kubesvc.cli.options import box_or_fail, which_box
from kubesvc.node.images import archive, credentials, reference, root
from kubesvc.node.images.image import Image, ImageError
from kubesvc.node.images.pull import pull as pull_image
from kubesvc.node.images.reference import Reference
from kubesvc.node.images.store import Store


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def image() -> None:
    """Load, pull, list and remove a box's images. All its nodes share them."""


@contextmanager
def _store(box: Box) -> Iterator[Store]:
    """The box's store; ImageError becomes a ClickException."""
    try:
        if os.geteuid() != 0:
            raise ImageError("a box's images belong to root: run the command with sudo")
        store = Store(box.images)
        store.make()
        yield store
    except ImageError as error:
        raise click.ClickException(str(error)) from error


def _parse(name: str) -> Reference:
    try:
        return reference.parse(name)
    except ValueError as error:
        raise ImageError(f"{error}; expected a name such as shop/web:1.2 or registry.example:5000/web") from error


@image.command()
@which_box
@click.option("--tag", metavar="NAME", default="", help="What to call the image, whatever the archive says.")
@click.argument("file", type=click.File("rb"))
def load(name: str, directory: Path | None, tag: str, file: IO[bytes]) -> None:
    """Load images from FILE, as `docker save` writes it, or an OCI layout in a tar; - reads standard input."""
    with _store(box_or_fail(name, directory)) as store:
        if tag:
            _parse(tag)
        for found in asyncio.run(archive.load(store, file, tag)):
            click.echo(f"Loaded {', '.join(found.names)} ({_size(found.size)})")


@image.command()
@which_box
@click.argument("image_name", metavar="IMAGE")
def pull(name: str, directory: Path | None, image_name: str) -> None:
    """Pull IMAGE from its registry, with the credentials that `docker login` left, if any."""
    with _store(box_or_fail(name, directory)) as store:
        wanted = _parse(image_name)
        file = docker_config()
        try:
            keyring = credentials.decode(file.read_bytes(), str(file))
        except OSError:
            keyring = ()
        say = lambda text: click.echo(text, err=True)  # noqa: E731
        found = asyncio.run(pull_image(store, wanted, credentials.matching(keyring, wanted), say))
        click.echo(f"Pulled {wanted} ({_size(found.size)})\n{found.shown}")


@image.command("list")
@which_box
def list_images(name: str, directory: Path | None) -> None:
    """List the images, what they take on disk, and how old they are."""
    with _store(box_or_fail(name, directory)) as store:
        rows = [("IMAGE", "TAG", "IMAGE ID", "CREATED", "SIZE")]
        for found in store.list():
            for known in found.names or ("<none>:<none>",):
                repository, _, tag = known.rpartition(":")
                age = _age(found.created)
                rows.append((repository, tag, found.id.removeprefix("sha256:")[:12], age, _size(found.size)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        click.echo("   ".join([*(text.ljust(width) for text, width in zip(row[:4], widths, strict=True)), row[4]]))


@image.command()
@which_box
@click.argument("image_names", metavar="IMAGE...", nargs=-1, required=True)
def remove(name: str, directory: Path | None, image_names: tuple[str, ...]) -> None:
    """Remove images by name or id; layers that no other image has go with them. One that a container runs of stays."""
    box = box_or_fail(name, directory)
    with _store(box) as store:
        for given in image_names:
            found, known = _find(store, given)
            gone = store.remove(found, known, lambda: root.in_use(box.run_path))
            click.echo(f"Removed {known or found.id}" + ("" if gone else f"; {', '.join(_left(store, found))} stays"))


def _left(store: Store, image: Image) -> tuple[str, ...]:
    return next((other.names for other in store.list() if other.id == image.id), ())


def _find(store: Store, given: str) -> tuple[Image, str]:
    """The image and the name it is to lose; "" for all of it."""
    if (found := store.by_id(given)) is not None:
        return found, ""
    wanted = _parse(given)
    for one in store.list():
        if wanted.tagged in one.names and not wanted.digest:
            return one, wanted.tagged
        if f"{wanted.name}@{wanted.digest}" in one.digests:
            return one, ""
    raise ImageError(f"there is no image {given} here; `kubesvc image list` shows what there is")


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _age(created: str) -> str:
    try:
        then = datetime.fromisoformat(created[:19]).replace(tzinfo=UTC)
    except ValueError:
        return "-"
    days = max(0, (datetime.now(UTC) - then).days)
    return f"{days} days ago" if days > 1 else "today" if days == 0 else "yesterday"

"""Images' names, accounts, command lines and credentials."""

from __future__ import annotations

import base64
import json

import pytest

from kubesvc.api.core import Secret
from kubesvc.api.meta import ObjectMeta
from kubesvc.node.images import accounts, credentials, image, manifest, reference
from kubesvc.node.images.accounts import Account
from kubesvc.node.images.image import Image, ImageError

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("shop/web", "docker.io/shop/web:latest"),
        ("index.docker.io/library/web", "docker.io/library/web:latest"),
        ("localhost/web", "localhost/web:latest"),
        ("localhost:5000/shop/web:1", "localhost:5000/shop/web:1"),
        ("[::1]:5000/web", "[::1]:5000/web:latest"),
        ("registry.example/a/b/c_d__e-f.g:V1", "registry.example/a/b/c_d__e-f.g:V1"),
        (f"web@{DIGEST}", f"docker.io/library/web@{DIGEST}"),
        (f"web:1@{DIGEST}", f"docker.io/library/web:1@{DIGEST}"),
    ],
)
def test_a_name_is_completed_as_docker_does(text: str, whole: str) -> None:
    assert str(reference.parse(text)) == whole


@pytest.mark.parametrize("text", ["", "Web", "web:", "web:a b", "web@sha256:1", "../etc", "a//b", "web:-x", "a/../b"])
def test_what_is_no_name_is_refused_in_upstreams_words(text: str) -> None:
    with pytest.raises(ValueError, match='couldn\'t parse image name ".*": invalid reference format'):
        reference.parse(text)


@pytest.mark.parametrize(
    ("text", "local"),
    [("localhost:5000/a", True), ("127.0.0.2/a", True), ("[::1]:5/a", True), ("10.0.0.1:5000/a", False), ("a", False)],
)
def test_only_a_registry_of_this_machine_is_local(text: str, local: bool) -> None:
    assert reference.parse(text).is_local is local


@pytest.mark.parametrize("name", ["host", "host:latest", "kubesvc/host", "docker.io/library/host:latest"])
def test_the_host_image_goes_by_several_names(name: str) -> None:
    assert image.is_host(name)


PASSWD = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:1234:4321::/srv:/bin/sh\n"
GROUP = "root:x:0:\nweb:x:4321:\nlogs:x:777:web,other\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", Account(0, 0)),
        ("root", Account(0, 0)),
        ("web", Account(1234, 4321, (777,))),
        ("1234", Account(1234, 4321, (777,))),
        ("99", Account(99, 0)),
        ("web:logs", Account(1234, 777)),
        ("99:98", Account(99, 98)),
    ],
)
def test_a_user_is_looked_up_in_the_image(text: str, found: Account) -> None:
    assert accounts.resolve(text, PASSWD, GROUP) == found


@pytest.mark.parametrize(("text", "says"), [("nobody", "find user nobody"), ("web:nobody", "find group nobody")])
def test_a_user_that_is_not_in_the_image_is_named(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        accounts.resolve(text, PASSWD, GROUP)


@pytest.mark.parametrize(
    ("words", "arguments", "line"),
    [
        ((), (), ("/entry", "default")),
        ((), ("own",), ("/entry", "own")),
        (("/own",), (), ("/own",)),
        (("/own",), ("args",), ("/own", "args")),
    ],
)
def test_command_and_args_replace_entrypoint_and_cmd(words, arguments, line) -> None:
    built = Image(id=DIGEST, entrypoint=("/entry",), command=("default",))
    assert image.command(built, words, arguments) == line


def auth(name: str, password: str) -> str:
    return base64.b64encode(f"{name}:{password}".encode()).decode()


def test_the_most_particular_credentials_come_first() -> None:
    auths = {
        "registry.example": {"auth": auth("all", "1")},
        "https://registry.example/shop/": {"auth": auth("shop", "2")},
        "https://index.docker.io/v1/": {"username": "hub", "password": "3"},
    }
    keyring = credentials.decode(json.dumps({"auths": auths, "credsStore": "x"}), "config.json")
    names = lambda text: [c.username for c in credentials.matching(keyring, reference.parse(text))]  # noqa: E731
    assert names("registry.example/shop/web") == ["shop", "all"]
    assert names("registry.example/shopping") == ["all"]
    assert names("busybox") == ["hub"]
    assert names("other.example/web") == []


def test_secrets_of_both_types_are_read() -> None:
    entries = {"r.example": {"auth": auth("a", "b")}}
    for key, tree in ((".dockerconfigjson", {"auths": entries}), (".dockercfg", entries)):
        data = {key: base64.b64encode(json.dumps(tree).encode()).decode()}
        ((place, found),) = credentials.of_secret(Secret(metadata=ObjectMeta(name="s"), data=data))
        assert (place, found.username, found.password) == ("r.example", "a", "b")
    with pytest.raises(ImageError, match="Secret s has neither"):
        credentials.of_secret(Secret(metadata=ObjectMeta(name="s")))
    with pytest.raises(ImageError, match="is not a Docker configuration"):
        credentials.decode(b"{", "config.json")


def test_a_challenge_is_taken_apart() -> None:
    header = 'Bearer realm="https://auth.example/token?a=b",service="r.example",scope="repository:x:pull,push"'
    scheme, parameters = credentials.challenge(header)
    assert (scheme, parameters["realm"], parameters["service"]) == (
        "bearer",
        "https://auth.example/token?a=b",
        "r.example",
    )


@pytest.mark.parametrize("text", ["sha256:../../etc", "sha256:" + "A" * 64, "md5:" + "a" * 32, "sha256:" + "a" * 63])
def test_a_digest_that_could_not_be_a_files_name_is_refused(text: str) -> None:
    tree = {"schemaVersion": 2, "config": {"digest": text}, "layers": []}
    with pytest.raises(ImageError, match="expected sha256 and 64"):
        manifest.decode(json.dumps(tree).encode(), "x")

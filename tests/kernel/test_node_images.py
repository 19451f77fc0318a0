"""Pods of pulled images: how they are started, what waits with which words, and what is shared."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from kubesvc.api import registry as kinds
from kubesvc.api.pods import Pod
from kubesvc.node.images import root
from support.images import Built, Registry, busybox, layer, registry
from support.node import NodeBed, is_ready, node_bed

BUSYBOX = busybox()
SERVER = Built(
    [BUSYBOX],
    Entrypoint=["sh", "-c"],
    Cmd=["echo $GREETING from $(id -u):$(id -g) in $PWD as $HOME; trap 'exit 3' QUIT; while :; do sleep 0.1; done"],
    Env=["PATH=/bin", "GREETING=hello"],
    User="web",
    WorkingDir="/srv/made",
    StopSignal="SIGQUIT",
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """It listens in the network namespace the test began in; pods' agent is in another, and pulls in that."""
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("private"), ("shop", "s3cret")) as found:
        yield found


@pytest.fixture
async def bed() -> AsyncIterator[NodeBed]:
    async with node_bed(outside=True) as made:
        await made.start_agent()
        yield made


def state(pod: Pod) -> Any:
    statuses = pod.status.container_statuses
    return statuses[0].state if statuses else None


def waits(reason: str) -> Any:
    return lambda p: state(p) is not None and state(p).waiting is not None and state(p).waiting.reason == reason


async def test_an_image_is_pulled_and_started_as_it_says(bed: NodeBed, served: Registry) -> None:
    name = served.push(SERVER, "web:1")
    await bed.create("web", [], container={"image": name})
    pod = await bed.running("web")
    status = pod.status.container_statuses[0]
    assert status.image_id.startswith(f"{served.host}/web@sha256:")
    await bed.until_event("web", "Pulling", f'Pulling image "{name}"')
    await bed.until_event("web", "Pulled", f'Successfully pulled image "{name}" in ')
    assert "hello from 1234:4321 in /srv/made as /srv" in await bed.log_with("web", "hello")
    code, out, _ = await bed.execute("web", ["sh", "-c", "id -G; touch /written && echo $?; ls /"])
    assert code in (0, 1), out
    await bed.delete("web", grace_seconds=30)  # SIGTERM would do nothing
    await bed.until_gone("web")


async def test_command_args_env_and_users_of_the_pod_win(bed: NodeBed, served: Registry) -> None:
    name = served.push(SERVER, "web:2")
    container = {
        "image": name,
        "args": ["echo $GREETING $(id -u); sleep 1000"],
        "env": [{"name": "GREETING", "value": "good morning"}],
        "securityContext": {"runAsUser": 0},
    }
    await bed.create("web", [], container=container)
    await bed.running("web")
    assert "good morning 0" in await bed.log_with("web", "good")


async def test_containers_of_one_image_share_layers_and_nothing_else(bed: NodeBed, served: Registry) -> None:
    name = served.push(Built([BUSYBOX], Cmd=["sleep", "1000"], Env=["PATH=/bin"]), "sleep:1")
    for pod in ("one", "two"):
        await bed.create(pod, [], container={"image": name})
    for pod in ("one", "two"):
        await bed.running(pod)
    assert (await bed.execute("one", ["sh", "-c", "echo x > /mine"]))[0] == 0
    assert (await bed.execute("two", ["test", "-e", "/mine"]))[0] == 1
    assert len(list((bed.config.run_dir / "images/layers").iterdir())) == 1
    await bed.until_event("two", "Pulled", "")


async def test_an_image_that_cannot_be_had_waits_with_upstreams_reasons(bed: NodeBed, served: Registry) -> None:
    name = f"{served.host}/absent:1"
    await bed.create("absent", ["x"], container={"image": name})
    pod = await bed.until("absent", waits("ErrImagePull"))
    assert state(pod).waiting.message == f'failed to resolve reference "{name}": {name}: not found'
    pod = await bed.until("absent", waits("ImagePullBackOff"))
    assert state(pod).waiting.message.startswith(f'Back-off pulling image "{name}": ErrImagePull: ')
    await bed.until_event("absent", "Failed", f'Failed to pull image "{name}": failed to resolve')
    await bed.until_event("absent", "Failed", "Error: ErrImagePull")
    await bed.until_event("absent", "BackOff", f'Back-off pulling image "{name}"')
    await bed.until_event("absent", "Failed", "Error: ImagePullBackOff")
    await bed.delete("absent")
    await bed.until_gone("absent")


@pytest.mark.parametrize(
    ("container", "reason", "says"),
    [
        (
            {"image": "127.0.0.1:9/x:1", "imagePullPolicy": "Never"},
            "ErrImageNeverPull",
            "with pull policy of Never",
        ),
        ({"image": "Not A Name"}, "InvalidImageName", "invalid reference format"),
    ],
    ids=["never", "no name"],
)
async def test_what_no_pull_can_help_says_so(bed: NodeBed, container, reason, says) -> None:
    await bed.create("wrong", ["x"], container=container)
    pod = await bed.until("wrong", waits(reason))
    assert says in state(pod).waiting.message


async def test_always_asks_the_registry_and_if_not_present_does_not(bed: NodeBed, served: Registry) -> None:
    first = Built([BUSYBOX], Cmd=["sleep", "1000"], Env=["PATH=/bin", "WHICH=first"])
    second = Built([BUSYBOX], Cmd=["sleep", "1000"], Env=["PATH=/bin", "WHICH=second"])
    name = served.push(first, "moving:1")
    await bed.create("before", [], container={"image": name})
    await bed.running("before")
    served.push(second, "moving:1")
    await bed.create("same", [], container={"image": name, "imagePullPolicy": "IfNotPresent"})
    await bed.create("new", [], container={"image": name, "imagePullPolicy": "Always"})
    for pod, which in (("same", b"first"), ("new", b"second")):
        await bed.running(pod)
        assert which in (await bed.execute(pod, ["sh", "-c", "echo $WHICH"]))[1]


async def test_a_pull_secret_opens_a_private_registry(bed: NodeBed, private: Registry) -> None:
    name = private.push(Built([BUSYBOX], Cmd=["sleep", "1000"], Env=["PATH=/bin"]), "shop/web:1")
    await bed.create("shut", [], container={"image": name}, imagePullSecrets=[{"name": "missing"}])
    pod = await bed.until("shut", waits("ErrImagePull"))
    assert "pull access denied" in state(pod).waiting.message
    await bed.until_event(
        "shut", "FailedToRetrieveImagePullSecret", "Unable to retrieve some image pull secrets (missing)"
    )
    auth = base64.b64encode(b"shop:s3cret").decode()
    config = base64.b64encode(json.dumps({"auths": {private.host: {"auth": auth}}}).encode()).decode()
    secret = {"metadata": {"name": "login", "namespace": "default"}, "data": {".dockerconfigjson": config}}
    await bed.session.create(kinds.SECRET, secret | {"type": "kubernetes.io/dockerconfigjson"})
    await bed.create("open", [], container={"image": name}, imagePullSecrets=[{"name": "login"}])
    await bed.until("open", is_ready)


async def test_a_pod_that_is_deleted_while_its_image_is_pulled_goes_at_once(bed: NodeBed, tmp_path: Path) -> None:
    """The registry takes the connection and never answers."""
    with bed.outside_listener() as port:
        await bed.create("stuck", [], container={"image": f"127.0.0.1:{port}/slow:1"})
        await bed.until_event("stuck", "Pulling", "Pulling image")
        await bed.delete("stuck")
        await bed.until_gone("stuck")


async def test_an_images_files_are_a_volume(bed: NodeBed, served: Registry) -> None:
    """Read-only, whole or a part, of a pod of any image; the same after a restart of container and agent, when the
    name has another image by then; in use while the pod is there."""
    name = served.push(Built([layer({"model/a": "one"}), layer({"model/b": "two", "top": "three"})]), "data:1")
    mounts = [{"name": "data", "mountPath": "/data"}, {"name": "data", "mountPath": "/part", "subPath": "model"}]
    volumes = [{"name": "data", "image": {"reference": name, "pullPolicy": "Always"}}]
    script = "trap 'exit 3' TERM; while :; do sleep 0.1; done"
    await bed.create("p", ["/bin/sh", "-c", script], container={"volumeMounts": mounts}, volumes=volumes)
    await bed.running("p")
    await bed.until_event("p", "Pulled", f'Successfully pulled image "{name}" in ')
    read = "cat /data/model/a /data/model/b /data/top; echo; ls /part"
    assert await bed.printed("p", read) == ["onetwothree", "a", "b"]
    assert (await bed.execute("p", ["touch", "/data/x"]))[0] == 1
    (image,) = root.in_use(bed.config.run_dir.parent)
    served.push(Built([layer({"model/a": "another"})]), "data:1")
    await bed.stop_agent()
    await bed.start_agent()
    await bed.create("again", ["sleep", "1000"])
    await bed.running("again")
    await bed.execute("p", ["kill", "1"])
    await bed.until("p", lambda p: is_ready(p) and p.status.container_statuses[0].restart_count == 1)
    assert await bed.printed("p", read) == ["onetwothree", "a", "b"]
    assert root.in_use(bed.config.run_dir.parent) == {image}
    await bed.delete("p")
    await bed.until_gone("p")
    assert root.in_use(bed.config.run_dir.parent) == set()


@pytest.mark.parametrize(
    ("reference", "sub_path", "reason", "says"),
    [
        ("absent:1", "", "ErrImagePull", 'failed to resolve reference "'),
        ("data:2", "nowhere", "CreateContainerError", "subPath 'nowhere' is not in the image"),
        ("host", "", "CreateContainerConfigError", 'volume "data": the machine\'s own image has no files of its own'),
    ],
    ids=["absent", "no such part", "the machine's"],
)
async def test_a_volume_whose_image_cannot_be_had_is_waited_for(
    bed: NodeBed, served: Registry, reference: str, sub_path: str, reason: str, says: str
) -> None:
    served.push(Built([layer({"a": "one"})]), "data:2")
    name = reference if reference == "host" else f"{served.host}/{reference}"
    mounts = [{"name": "data", "mountPath": "/data", "subPath": sub_path}]
    volumes = [{"name": "data", "image": {"reference": name}}]
    await bed.create("p", ["sleep", "1000"], container={"volumeMounts": mounts}, volumes=volumes)
    pod = await bed.until("p", waits(reason))
    assert state(pod).waiting.message.startswith(says)

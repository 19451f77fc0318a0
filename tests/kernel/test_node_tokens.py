"""ServiceAccounts' tokens in real pods: there before the first command, for whom they are for, replaced in time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from kubesvc.api import registry
from kubesvc.node import tokens
from support.box import eventually
from support.node import NodeBed

FOREVER = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


async def who(bed: NodeBed, token: str) -> dict[str, Any]:
    body = json.dumps({"spec": {"token": token}}).encode()
    found = await bed.session.raw("POST", registry.TOKEN_REVIEW.path(), body=body)
    status: dict[str, Any] = json.loads(found.body)["status"]
    return status


async def test_a_pod_finds_its_token_its_ca_and_its_namespace(bed: NodeBed) -> None:
    await bed.create("p", FOREVER)
    pod = await bed.running("p")
    token, namespace, *ca = await bed.printed("p", f"cd {MOUNT}; cat token; echo; cat namespace; echo; cat ca.crt")
    assert namespace == "default"
    assert "\n".join(ca) + "\n" == (bed.directory / "ca.crt").read_text()
    found = await who(bed, token)
    assert found["user"]["username"] == "system:serviceaccount:default:default"
    assert found["user"]["extra"]["authentication.kubernetes.io/pod-uid"] == [pod.metadata.uid]
    assert await bed.printed("p", f"stat -Lc %a {MOUNT}/token; readlink {MOUNT}/token") == ["644", "..data/token"]
    assert (await bed.execute("p", ["sh", "-c", f"echo x > {MOUNT}/token"]))[0] != 0
    await bed.delete("p", grace_seconds=0)
    await bed.until_gone("p")
    assert "authenticated" not in await who(bed, token)


async def test_a_pod_without_automount_has_none(bed: NodeBed) -> None:
    await bed.create("p", FOREVER, automountServiceAccountToken=False)
    await bed.running("p")
    assert (await bed.execute("p", ["ls", MOUNT]))[0] != 0


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ({"runAsUser": 1000}, "600 1000 0"),
        ({"fsGroup": 2000}, "640 0 2000"),
        ({"runAsUser": 1000, "fsGroup": 2000}, "640 1000 2000"),
    ],
    ids=["runAsUser", "fsGroup", "both"],
)
async def test_a_token_is_for_whom_the_pod_runs_as(bed: NodeBed, context: dict[str, int], expected: str) -> None:
    await bed.create("p", FOREVER, securityContext=context)
    await bed.running("p")
    assert await bed.printed("p", f"stat -Lc '%a %u %g' {MOUNT}/token; cat {MOUNT}/token > /dev/null") == [expected]


async def test_a_token_is_replaced_before_it_expires(bed: NodeBed, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its share of its life, here a thousandth: by one rename, while the pod runs; its containers never restart."""
    monkeypatch.setattr(tokens, "_SHARE", 0.001)
    source = {"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}}
    volumes = [{"name": "v", "projected": {"sources": [source]}}]
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/vault"}]}
    await bed.create("p", FOREVER, volumes=volumes, container=mount, automountServiceAccountToken=False)
    await bed.running("p")
    loop = (
        'first=$(cat /vault/token); while [ "$first" = "$(cat /vault/token)" ]; do sleep 0.05; done; cat /vault/token'
    )
    (second,) = await bed.printed("p", loop)
    assert second.count(".") == 2
    body = json.dumps({"spec": {"token": second, "audiences": ["vault"]}}).encode()
    found = json.loads((await bed.session.raw("POST", registry.TOKEN_REVIEW.path(), body=body)).body)
    assert found["status"]["audiences"] == ["vault"]
    pod = bed.pods.get("default", "p")
    assert pod is not None
    assert pod.status.container_statuses[0].restart_count == 0


async def test_an_agent_that_starts_again_goes_on_replacing_tokens(bed: NodeBed) -> None:
    """It knows nothing of the tokens on disk, so it asks for others at once."""
    source = {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/own"}]}
    await bed.create("p", FOREVER, volumes=[{"name": "v", "projected": {"sources": [source]}}], container=mount)
    pod = await bed.running("p")
    paths = bed.config.paths.pod(pod.metadata.uid)
    files = [paths.volume(volume.name) / "token" for volume in pod.spec.volumes]
    before = [file.read_text() for file in files]
    await bed.stop_agent()
    await bed.start_agent()
    assert len(files) == 2
    await asyncio.to_thread(eventually, lambda: not any(file.read_text() in before for file in files))

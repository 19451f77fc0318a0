"""Server-side apply of a Scale: whose the replicas are, said in the managedFields of the object itself.

The steps are those of upstream's integration test of /scale and managedFields.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from kubesvc.api.errors import ApiError, from_status
from kubesvc.api.registry import DEPLOYMENT
from kubesvc.apiserver.managed import scaling
from kubesvc.client.session import Session
from kubesvc.client.transport import LocalTransport, Request
from support.apiserver import ADMIN, local_server

JSON = dict[str, Any]
REPLICAS: JSON = {"f:spec": {"f:replicas": {}}}
SPEC: JSON = {
    "selector": {"matchLabels": {"app": "d"}},
    "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "host"}]}},
}


class Client:
    def __init__(self, handler: Any) -> None:
        self._handler = handler
        self.session = Session(LocalTransport(handler, ADMIN))

    async def apply(self, tree: JSON, manager: str, subresource: str = "", **query: str) -> JSON:
        """What the server answers. Raises its refusal."""
        response = await self._handler(
            Request(
                "PATCH",
                DEPLOYMENT.path("default", "d", subresource),
                {"fieldManager": manager, **query},
                {"content-type": "application/apply-patch+yaml"},
                msgspec.json.encode(tree),
                ADMIN,
            )
        )
        found: JSON = msgspec.json.decode(response.body)
        if response.status >= 400:
            raise from_status(found, response.status)
        return found

    async def scale(self, replicas: Any, manager: str, **query: str) -> JSON:
        tree = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"},
                "spec": {"replicas": replicas}}  # fmt: skip
        return await self.apply(tree, manager, "scale", **query)

    async def owners(self) -> dict[tuple[str, str, str], JSON]:
        """(manager, operation, subresource) -> its entry, of those who own the replicas."""
        found = await self.session.get(DEPLOYMENT, "default", "d")
        return {
            (one["manager"], one["operation"], one.get("subresource", "")): one
            for one in found["metadata"]["managedFields"]
            if "f:replicas" in one["fieldsV1"].get("f:spec", {})
        }

    async def replicas(self) -> int:
        found: int = (await self.session.get(DEPLOYMENT, "default", "d"))["spec"]["replicas"]
        return found


def deployment(**spec: Any) -> JSON:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "default"},
        "spec": {**SPEC, **spec},
    }


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with local_server() as server:
        yield Client(server.handler)


async def test_a_scale_that_others_own_is_a_conflict_by_the_objects_version(client: Client) -> None:
    await client.session.create(DEPLOYMENT, deployment(replicas=2))
    (maker,) = {manager for manager, _, _ in await client.owners()}
    with pytest.raises(ApiError) as error:
        await client.scale(5, "scaler")
    assert error.value.code == 409
    assert error.value.message == (
        f'Apply failed with 1 conflict: conflict with "{maker}" using apps/v1: .spec.replicas'
    )
    assert await client.replicas() == 2


async def test_forced_it_takes_the_replicas_and_no_more(client: Client) -> None:
    await client.apply(deployment(replicas=2), "maker")
    answer = await client.scale(5, "scaler", force="true")
    assert (answer["kind"], answer["apiVersion"], answer["spec"]) == ("Scale", "autoscaling/v1", {"replicas": 5})
    assert "managedFields" not in answer["metadata"], "whose they are is the object's to say"
    owners = await client.owners()
    assert list(owners) == [("scaler", "Apply", "scale")]
    entry = owners["scaler", "Apply", "scale"]
    assert (entry["apiVersion"], entry["fieldsV1"]) == ("apps/v1", REPLICAS)
    found = await client.session.get(DEPLOYMENT, "default", "d")
    assert (found["spec"]["replicas"], found["metadata"]["generation"]) == (5, 2)
    (maker,) = (one for one in found["metadata"]["managedFields"] if one["manager"] == "maker")
    assert set(maker["fieldsV1"]["f:spec"]) == {"f:selector", "f:template"}


async def test_who_wants_the_same_number_owns_it_too(client: Client) -> None:
    await client.apply(deployment(replicas=2), "maker")
    await client.scale(2, "scaler")
    assert set(await client.owners()) == {("maker", "Apply", ""), ("scaler", "Apply", "scale")}
    before = await client.session.get(DEPLOYMENT, "default", "d")
    await client.scale(2, "scaler")
    assert await client.session.get(DEPLOYMENT, "default", "d") == before, "applied again, it writes nothing"


async def test_an_apply_of_the_object_then_conflicts_with_the_scale(client: Client) -> None:
    await client.apply(deployment(replicas=2), "maker")
    await client.scale(5, "scaler", force="true")
    with pytest.raises(ApiError, match='conflict with "scaler" with subresource "scale": .spec.replicas'):
        await client.apply(deployment(replicas=2), "maker")
    await client.apply(deployment(), "maker")
    assert await client.replicas() == 5


async def test_replicas_that_nobody_set_count_as_set_before(client: Client) -> None:
    """As upstream: what a Scale is before anybody's first apply is somebody's, though it is a default."""
    await client.apply(deployment(), "maker")
    with pytest.raises(ApiError, match=r'conflict with "before-first-apply" .*: \.spec\.replicas'):
        await client.scale(5, "scaler")
    await client.scale(5, "scaler", force="true")
    assert list(await client.owners()) == [("scaler", "Apply", "scale")]


async def test_an_update_of_the_scale_takes_them_from_who_applied_it(client: Client) -> None:
    await client.apply(deployment(replicas=2), "maker")
    await client.scale(5, "scaler", force="true")
    await client.session.patch(DEPLOYMENT, "default", "d", {"spec": {"replicas": 7}}, subresource="scale")
    ((_, operation, subresource),) = await client.owners()
    assert (operation, subresource) == ("Update", "scale")
    with pytest.raises(ApiError, match=r'with subresource "scale" using apps/v1: \.spec\.replicas'):
        await client.scale(5, "scaler")


async def test_a_dry_run_changes_nothing(client: Client) -> None:
    await client.apply(deployment(replicas=2), "maker")
    assert (await client.scale(5, "scaler", force="true", dryRun="All"))["spec"] == {"replicas": 5}
    assert (await client.replicas(), set(await client.owners())) == (2, {("maker", "Apply", "")})


@pytest.mark.parametrize(
    ("tree", "query", "text"),
    [
        pytest.param({"spec": {"replicas": 1}}, {"fieldManager": ""}, "fieldManager", id="nobody"),
        pytest.param(deployment(replicas=3), {}, r"\(apps/v1\) does not match the expected API version", id="no Scale"),
        pytest.param({"metadata": {"name": "e"}}, {}, r"name of the object \(e\) does not match", id="another's"),
        pytest.param({"spec": {"replicas": -1}}, {}, "greater than or equal to 0", id="fewer than none"),
        pytest.param({"spec": {"replicas": "x"}}, {}, "must be of type integer", id="no number"),
        pytest.param({"spec": {"copies": 1}}, {"fieldValidation": "Strict"}, 'unknown field "spec.copies"', id="field"),
    ],
)
async def test_what_cannot_be_applied_is_said(client: Client, tree: JSON, query: dict[str, str], text: str) -> None:
    await client.apply(deployment(replicas=2), "maker")
    with pytest.raises(ApiError, match=text):
        await client.apply(tree, subresource="scale", **{"manager": query.pop("fieldManager", "x")}, force="true",
                           **query)  # fmt: skip
    assert await client.replicas() == 2


async def test_of_an_object_that_is_not_there_there_is_no_scale(client: Client) -> None:
    with pytest.raises(ApiError) as error:
        await client.scale(1, "scaler")
    assert error.value.code == 404


def test_ownership_is_told_to_a_scale_and_back() -> None:
    one = {"manager": "one", "operation": "Apply", "apiVersion": "apps/v1", "time": "2026-01-01T12:00:00Z",
           "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}, "f:paused": {}}}}  # fmt: skip
    two = one | {"manager": "two", "fieldsV1": {"f:spec": {"f:paused": {}}}}
    (known,) = scaling.of_scale([one, two], "spec.replicas")
    assert (known["manager"], known["fieldsV1"]) == ("one", REPLICAS)
    assert scaling.of_object([one, two], [known], "spec.replicas", "apps/v1") == [one, two]
    left = scaling.of_object([one, two], [], "spec.replicas", "apps/v1")
    assert [entry["fieldsV1"] for entry in left] == [{"f:spec": {"f:paused": {}}}] * 2
    new = known | {"manager": "new", "apiVersion": "autoscaling/v1", "subresource": "scale"}
    found = scaling.of_object([two], [new], "spec.replicas", "apps/v1")
    assert found[0] == new | {"apiVersion": "apps/v1"}

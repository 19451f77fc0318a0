"""The cloud behind the stand-in: objects, and operations that change them in their own time. No sockets."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address

from support.gcp.model import QUOTAS, Json, Problem, check, check_fields, find, invalid, plain, users_of

OUTPUT_ONLY = {
    "id",
    "selfLink",
    "creationTimestamp",
    "kind",
    "region",
    "zone",
    "status",
    "users",
    "size",
    "labelFingerprint",
}
FULL = {"backendService", "network", "subnetwork", "group"}  # fields that are links


class Cloud:
    """`objects`: collection's path -> name -> object. `latency`: seconds that an operation takes."""

    def __init__(self, project: str = "shop", region: str = "europe-west1", latency: float = 0.0) -> None:
        self.project, self.region, self.latency = project, region, latency
        self.objects: dict[str, dict[str, Json]] = {}
        self.members: dict[str, set[str]] = {}  # instance group's path -> VMs' paths
        self.instances: set[str] = set()  # zones/Z/instances/NAME
        self.operations: dict[str, Json] = {}
        self.asked: dict[str, Json] = {}  # request id -> its operation
        self.quotas = dict(QUOTAS)
        self.history: Counter[str] = Counter()  # "verb collection" -> operations done
        self.spoil: Callable[[], bool] = lambda: False  # whether the next operation fails
        self.gate: dict[str, asyncio.Event] = {}  # "verb collection" -> until when such operations only run
        self._busy: set[str] = set()  # objects' paths that an operation is about
        self._numbers = itertools.count(1)
        self._done: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._external = (IPv4Address("203.0.113.0") + n for n in itertools.count(1))
        self._internal = (IPv4Address("10.132.0.0") + n for n in itertools.count(100))

    def vm(self, zone: str, name: str) -> None:
        self.instances.add(f"zones/{zone}/instances/{name}")

    def of(self, collection: str) -> dict[str, Json]:
        """All objects of a collection, by name; zonal ones by ZONE/NAME."""
        found = {}
        for path, objects in self.objects.items():
            if path.endswith(f"/{collection}"):
                zone = path.split("/")[1] + "/" if path.startswith("zones/") else ""
                found |= {zone + name: body for name, body in objects.items()}
        return found

    def leftovers(self) -> list[str]:
        """Paths of all that isn't a user's static address."""
        every = [f"{path}/{name}" for path, objects in self.objects.items() for name in objects]
        return sorted(path for path in every if "/addresses/user-" not in path)

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def insert(self, path: str, body: Json, request_id: str) -> Json:
        collection = path.rpartition("/")[2]
        check_fields(collection, body)
        target = f"{path}/{body.get('name')}"
        if before := self.asked.get(request_id):
            return before
        if body.get("name") in self.objects.get(path, {}) or target in self._busy:
            raise Problem(409, "alreadyExists", f"The resource '{target}' already exists")
        going = sum(other.startswith(f"{path}/") for other in self._busy)
        if len(self.objects.get(path, {})) + going >= self.quotas.get(collection, 10**6):
            raise Problem(403, "quotaExceeded", f"Quota '{collection.upper()}' exceeded in region {self.region}.")
        check(collection, self.objects, path, dict(body))

        def act() -> None:
            check(collection, self.objects, path, body)
            self._complete(path, body)
            self.objects.setdefault(path, {})[body["name"]] = body

        return self._operate("insert", target, request_id, act)

    def modify(self, path: str, name: str, body: Json, request_id: str, *, whole: bool) -> Json:
        """PATCH, or PUT with `whole`."""
        collection, target = path.rpartition("/")[2], f"{path}/{name}"
        body = {key: value for key, value in body.items() if key not in OUTPUT_ONLY}
        check_fields(collection, body)
        if before := self.asked.get(request_id):
            return before
        found = self._ready(target)
        if collection == "forwardingRules" and body.keys() - {
            "allowGlobalAccess",
            "networkTier",
            "name",
            "fingerprint",
        }:
            raise invalid("Only allowGlobalAccess and networkTier of a forwarding rule can be patched.")
        if collection == "addresses":
            raise Problem(405, "methodNotAllowed", "An address can't be changed.")
        if collection == "backendServices":
            if "fingerprint" in body and body["fingerprint"] != found["fingerprint"]:
                raise Problem(412, "conditionNotMet", "Invalid fingerprint.")
            if body.get("loadBalancingScheme", found["loadBalancingScheme"]) != found["loadBalancingScheme"]:
                raise invalid("The loadBalancingScheme of a backend service can't be changed.")
            if body.get("protocol", found["protocol"]) != found["protocol"] and users_of(self.objects, target):
                raise invalid("The protocol of a backend service in use can't be changed.")
        kept = {key: found[key] for key in OUTPUT_ONLY & found.keys()} if whole else found
        after = {**kept, **body, "name": name}
        check(collection, self.objects, path, dict(after))

        def act() -> None:
            check(collection, self.objects, path, after)
            self._complete(path, after)
            self.objects[path][name] = after

        return self._operate("update" if whole else "patch", target, request_id, act)

    def delete(self, path: str, name: str, request_id: str) -> Json:
        """A static address in use by a rule may go: the rule keeps the address."""
        target = f"{path}/{name}"
        if before := self.asked.get(request_id):
            return before
        self._ready(target)

        def unused() -> None:
            users = users_of(self.objects, target)
            if users:
                message = f"The resource '{target}' is already being used by '{users[0]}'"
                raise Problem(400, "resourceInUseByAnotherResource", message)

        def act() -> None:
            unused()
            del self.objects[path][name]
            self.members.pop(target, None)

        unused()
        return self._operate("delete", target, request_id, act)

    def enrol(self, path: str, name: str, action: str, body: Json, request_id: str) -> Json:
        target = f"{path}/{name}"
        if before := self.asked.get(request_id):
            return before
        self._ready(target)
        named = [plain(entry["instance"]) for entry in body.get("instances", ())]

        def act() -> None:
            members = self.members.setdefault(target, set())
            for vm in named:
                if vm not in self.instances or vm.split("/")[1] != path.split("/")[1]:
                    raise Problem(404, "notFound", f"The resource '{vm}' was not found")
                if (vm in members) is (action == "addInstances"):
                    raise Problem(400, "memberAlreadyExists" if vm in members else "memberNotFound", vm)
                others = [group for group, vms in self.members.items() if vm in vms and group != target]
                if action == "addInstances" and any(users_of(self.objects, group) for group in others):
                    raise Problem(400, "instanceInMultipleLoadBalancedIgs", f"{vm} is in {others[0]}")
            (members.update if action == "addInstances" else members.difference_update)(named)

        return self._operate(action, target, request_id, act)

    def get(self, path: str, name: str) -> Json:
        return find(self.objects, f"projects/{self.project}/{path}/{name}")

    async def wait(self, name: str) -> Json:
        if name not in self.operations:
            raise Problem(404, "notFound", f"The resource 'operations/{name}' was not found")
        await self._done[name].wait()
        return self.operations[name]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def quiet(self) -> None:
        """Until no operation runs."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _ready(self, target: str) -> Json:
        if target in self._busy:
            raise Problem(400, "resourceNotReady", f"The resource '{target}' is not ready")
        return find(self.objects, f"projects/{self.project}/{target}")

    def _operate(self, verb: str, target: str, request_id: str, act: Callable[[], None]) -> Json:
        number = next(self._numbers)
        scope, _, rest = target.partition("/")
        operation: Json = {
            "kind": "compute#operation",
            "name": f"operation-{number}",
            "id": str(number),
            "operationType": verb,
            "targetLink": self._whole(target),
            "status": "PENDING",
        }
        if scope != "global":
            operation[scope.removesuffix("s")] = self._whole(f"{scope}/{rest.partition('/')[0]}")
        self.operations[operation["name"]] = operation
        self._done[operation["name"]] = asyncio.Event()
        if request_id:
            self.asked[request_id] = operation
        self._busy.add(target)
        task = asyncio.create_task(self._perform(operation, target, act))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return dict(operation)

    async def _perform(self, operation: Json, target: str, act: Callable[[], None]) -> None:
        await asyncio.sleep(self.latency / 2)
        operation["status"] = "RUNNING"
        gate = self.gate.get(f"{operation['operationType']} {target.split('/')[-2]}")
        if gate is not None:
            await gate.wait()
        await asyncio.sleep(self.latency / 2)
        try:
            if self.spoil():
                raise Problem(500, "internalError", "Internal error. Please try again.")
            act()
            self.history[f"{operation['operationType']} {target.split('/')[-2]}"] += 1
        except Problem as problem:
            operation["httpErrorStatusCode"] = problem.status
            operation["error"] = {"errors": [{"code": problem.code, "message": str(problem)}]}
        operation["status"] = "DONE"
        self._busy.discard(target)
        self._done[operation["name"]].set()

    def _complete(self, path: str, body: Json) -> None:
        """What the service adds."""
        collection = path.rpartition("/")[2]
        scope, _, rest = path.partition("/")
        if scope != "global":
            body[scope.removesuffix("s")] = self._whole(f"{scope}/{rest.partition('/')[0]}")
        body.setdefault("id", str(next(self._numbers)))
        body["kind"] = f"compute#{collection.removesuffix('es' if collection == 'addresses' else 's')}"
        body["selfLink"] = self._whole(f"{path}/{body['name']}")
        body["fingerprint"] = f"fp{next(self._numbers)}="
        if collection not in ("backendServices", "forwardingRules", "instanceGroups"):
            del body["fingerprint"]
        for key in FULL & body.keys():
            body[key] = self._whole(plain(body[key]))
        if "healthChecks" in body:
            body["healthChecks"] = [self._whole(plain(link)) for link in body["healthChecks"]]
        for backend in body.get("backends", ()):
            backend |= {"group": self._whole(plain(backend["group"])), "kind": "compute#backend"}
        if collection == "forwardingRules" and not body.get("IPAddress"):
            body["IPAddress"] = self._fresh(body["loadBalancingScheme"])
        if collection == "addresses" and not body.get("address"):
            body["address"] = self._fresh(body["addressType"])
        for key in [key for key, value in body.items() if value in ([], None)]:
            del body[key]

    def _fresh(self, scheme: str) -> str:
        return str(next(self._internal if scheme == "INTERNAL" else self._external))

    def _whole(self, path: str) -> str:
        return f"https://www.googleapis.com/compute/v1/projects/{self.project}/{path}"


def select(objects: list[Json], expression: str) -> list[Json]:
    """Of a list's `filter`, the two forms in use: `name eq REGEX` and `status != VALUE`."""
    if not expression:
        return objects
    by_name = re.fullmatch(r'name eq "([^"]+)"', expression)
    if by_name:
        return [o for o in objects if re.fullmatch(by_name[1], o["name"])]
    by_status = re.fullmatch(r"status != (\w+)", expression)
    if by_status:
        return [o for o in objects if o["status"] != by_status[1]]
    raise invalid(f"Invalid value for field 'filter': '{expression}'.")

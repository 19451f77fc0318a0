"""The verbs, over a session: what each sends, and what it says of the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from urllib.parse import urlencode

import msgspec

from kubesvc.api.errors import ApiError, Invalid, NotFound
from kubesvc.api.meta import JSON
from kubesvc.api.registry import POD, Kind
from kubesvc.client.session import Session
from kubesvc.kubectl.kinds import Kinds
from kubesvc.kubectl.manifests import KubectlError
from kubesvc.kubectl.printing import named

MANAGER = "kubesvc"
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


def placed(tree: JSON, kind: Kind, namespace: str) -> str:
    """The namespace an object goes to: its own, else the one given."""
    return str(tree["metadata"].get("namespace") or namespace) if kind.namespaced else ""


async def apply(session: Session, kind: Kind, tree: JSON, namespace: str) -> str:
    """Server-side apply; "service/web created", configured or unchanged."""
    name, where = tree["metadata"]["name"], placed(tree, kind, namespace)
    try:
        before = (await session.get(kind, where, name))["metadata"].get("resourceVersion")
    except NotFound:
        before = None
    after = await session.raw(
        "PATCH",
        kind.path(where, name),
        query={"fieldManager": MANAGER, "force": "true", "fieldValidation": "Strict"},
        body=msgspec.json.encode(tree),
        content_type="application/apply-patch+yaml",
    )
    revision = msgspec.json.decode(after.body)["metadata"]["resourceVersion"]
    said = "created" if before is None else "unchanged" if before == revision else "configured"
    return f"{named(kind, name)} {said}"


async def delete(session: Session, kind: Kind, namespace: str, name: str, *, grace: int | None, wait: bool) -> str:
    """`service "web" deleted from shop namespace`, once it is gone if `wait`."""
    where = namespace if kind.namespaced else ""
    uid = (await session.get(kind, where, name))["metadata"]["uid"]
    await session.delete(kind, where, name, grace_seconds=grace, propagation="Background")
    while wait:
        if not await _is_there(session, kind, where, name, uid):
            break
        await asyncio.sleep(0.1)
    resource = named(kind, name).partition("/")[0]
    return f'{resource} "{name}" deleted' + (f" from {namespace} namespace" if kind.namespaced else "")


async def _is_there(session: Session, kind: Kind, namespace: str, name: str, uid: str) -> bool:
    try:
        found: JSON = await session.get(kind, namespace, name)
    except NotFound:
        return False
    return bool(found["metadata"]["uid"] == uid)


async def table(session: Session, kind: Kind, namespace: str, name: str, query: Mapping[str, str]) -> JSON:
    """The server's own table of one object or of all."""
    answer = await session.raw("GET", kind.path(namespace, name), query=query, accept=TABLE)
    found: JSON = msgspec.json.decode(answer.body)
    return found


async def tree(session: Session, kind: Kind, namespace: str, name: str, query: Mapping[str, str]) -> JSON:
    answer = await session.raw("GET", kind.path(namespace, name), query=query)
    found: JSON = msgspec.json.decode(answer.body)
    return found


async def logs(session: Session, namespace: str, name: str, query: Mapping[str, str]) -> AsyncIterator[bytes]:
    """A container's log, as it comes."""
    answer = await session.raw("GET", POD.path(namespace, name, "log"), query=query)
    if answer.stream is None:
        yield answer.body
        return
    async for line in answer.stream:
        yield line + b"\n"


async def target(session: Session, namespace: str, word: str) -> str:
    """The pod a word means: POD, pod/POD, or one of a Deployment's or Service's: deployment/NAME."""
    if "/" not in word:
        return word
    kind, name = (await Kinds(session).wanted([word]))[0]
    if kind == POD:
        return name
    spec = (await session.get(kind, namespace, name)).get("spec") or {}
    selector = spec.get("selector") or {}
    labels = selector.get("matchLabels", selector)
    query = {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())}
    pods = (await tree(session, POD, namespace, "", query))["items"] if labels else []
    running = [p for p in pods if p.get("status", {}).get("phase") == "Running"] or pods
    if not running:
        raise KubectlError(f"{word} has no pods")
    return str(running[0]["metadata"]["name"])


async def chosen(session: Session, namespace: str, pod: str, wanted: str) -> tuple[str, str]:
    """The container of the pod that is meant, and what to say of it if nobody said which. Raises KubectlError."""
    found = await session.get(POD, namespace, pod)
    names = {
        part: [container["name"] for container in found["spec"].get(part) or ()]
        for part in ("containers", "ephemeralContainers", "initContainers")
    }
    mains, debug, init = names.values()
    whole = ", ".join([*mains, *(f"{name} (ephem)" for name in debug), *(f"{name} (init)" for name in init)])
    if wanted:
        if wanted not in {*mains, *debug, *init}:
            raise KubectlError(f"container {wanted} is not valid for pod {pod} out of: {whole}")
        return wanted, ""
    default: str = (found["metadata"].get("annotations") or {}).get(DEFAULT_CONTAINER, "")
    if default in mains:
        return default, ""
    alone = len(mains) == 1 and not debug and not init
    return mains[0], "" if alone else f'Defaulted container "{mains[0]}" out of: {whole}'


def explained(error: ApiError) -> str:
    """As kubectl prints what a server said."""
    if isinstance(error, Invalid) and (details := error.details) and details.get("kind"):
        causes = [f"{cause.get('field', '')}: {cause.get('message', '')}" for cause in details.get("causes") or ()]
        told = f'The {details["kind"]} "{details.get("name", "")}" is invalid: '
        return told + (causes[0] if len(causes) == 1 else "".join(f"\n* {cause}" for cause in dict.fromkeys(causes)))
    reason = getattr(error, "reason", "") or "Unknown"
    return f"Error from server ({reason}): {error}"


def exec_path(namespace: str, pod: str, container: str, command: Sequence[str], *, stdin: bool) -> str:
    pairs = [("command", word) for word in command] + [("stdout", "true"), ("stderr", "true")]
    pairs += [("stdin", "true")] if stdin else []
    pairs += [("container", container)] if container else []
    return f"{POD.path(namespace, pod, 'exec')}?{urlencode(pairs)}"

"""ServiceAccounts where other objects are written: what a pod, a namespace and a Secret for a token get of them.

A namespace is committed together with its ServiceAccount, so that a pod made right after it finds it; the controllers
restore it later, and publish the cluster's CA.
"""

from __future__ import annotations

import asyncio
import base64

from kubesvc.api.errors import Forbidden, not_found
from kubesvc.api.meta import JSON
from kubesvc.api.registry import POD, SECRET, SERVICE_ACCOUNT
from kubesvc.apiserver import stored
from kubesvc.apiserver.admission import accounts
from kubesvc.apiserver.authentication.claims import Reference
from kubesvc.apiserver.fields import check_types
from kubesvc.apiserver.state import State
from kubesvc.store.protocol import Write

_LOOKS, _BETWEEN = 10, 0.1  # at a default account that was deleted: the controllers make it again; seconds


async def admit_pod(state: State, namespace: str, pod: JSON) -> list[accounts.Path]:
    """Give a new pod what its ServiceAccount gives; the elements of managed fields that it added. Raises Forbidden."""
    if check_types(POD, pod) or not isinstance(pod.get("spec"), dict):
        return []  # for validation to say
    account = accounts.name_of(pod)
    found = await _account(state, namespace, account)
    for _ in range(_LOOKS - 1 if account == accounts.DEFAULT else 0):
        if found is not None:
            break
        await asyncio.sleep(_BETWEEN)
        found = await _account(state, namespace, account)
    if found is None:
        missing = not_found(SERVICE_ACCOUNT.singular, account)  # as upstream says it
        name = pod["metadata"].get("name") or ""
        why = f"error looking up service account {namespace}/{account}: {missing}"
        raise Forbidden(f'pods "{name}" is forbidden: {why}', details={"name": name, "kind": POD.plural})
    return accounts.give(pod, found, state.random.randrange)


async def _account(state: State, namespace: str, name: str) -> JSON | None:
    item = await state.store.get(stored.key(SERVICE_ACCOUNT, namespace, name))
    return None if item is None else state.lines.tree(item.key, item.value, item.revision)


async def furniture(state: State, namespace: str) -> list[Write]:
    """What is to be written with a new namespace: its ServiceAccount, if none is left from one of that name."""
    tree = accounts.account_of(namespace)
    key = stored.key(SERVICE_ACCOUNT, namespace, accounts.DEFAULT)
    if await state.store.get(key) is not None:
        return []
    tree["metadata"] |= {"uid": state.new_uid(), "creationTimestamp": state.now()}
    return [Write(key, stored.encode(SERVICE_ACCOUNT, tree), 0)]


async def fill_secret(state: State, namespace: str, secret: JSON) -> None:
    """A Secret for a ServiceAccount's token gets one, with the CA and the namespace; in place. What isn't such a
    Secret, or is of an account that isn't there, is left as it is: a controller takes that away."""
    metadata = secret["metadata"]
    if secret.get("type") != accounts.SECRET_TYPE or check_types(SECRET, secret):
        return
    name = (metadata.get("annotations") or {}).get(accounts.NAME) or ""
    account = await _account(state, namespace, name) if name else None
    if account is None or not metadata.get("name"):
        return
    uid, annotations = account["metadata"]["uid"], metadata["annotations"]
    if (annotations.get(accounts.UID) or uid) != uid:
        return
    metadata["annotations"] = {**annotations, accounts.UID: uid}
    data = secret["data"] = dict(secret.get("data") or {})
    contents = {"namespace": namespace} | ({"ca.crt": state.ca_pem} if state.ca_pem else {})
    if not data.get("token"):
        contents["token"] = state.tokens.issue_legacy(namespace, metadata["name"], Reference(name, uid))
    for field, value in contents.items():
        if not data.get(field):
            data[field] = base64.b64encode(value.encode()).decode()

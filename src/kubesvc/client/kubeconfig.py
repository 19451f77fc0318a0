"""Reading kubeconfig files: the server, its CA and the client's certificate or token of the current context."""

from __future__ import annotations

import base64
import logging
import os
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from kubesvc.client.pemfiles import Followed
from kubesvc.client.session import Session
from kubesvc.client.transport import HttpTransport

log = logging.getLogger(__name__)

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class KubeconfigError(Exception):
    """The file can't be used; the message names it, the part, and what was expected."""


def _named(config: dict[str, Any], section: str, name: str, field: str, path: Path) -> dict[str, Any]:
    for entry in config.get(section) or []:
        if entry.get("name") == name:
            found = entry.get(field)
            if isinstance(found, dict):
                return found
    raise KubeconfigError(f"{path}: no entry {name!r} under {section!r}; the current context refers to it")


def _material(section: dict[str, Any], field: str, path: Path) -> bytes | None:
    """The PEM bytes of FIELD: inline as FIELD-data in base64, or a file, relative to the kubeconfig."""
    if data := section.get(f"{field}-data"):
        return base64.b64decode(str(data))
    if file := section.get(field):
        return (path.parent / str(file)).read_bytes()
    return None


def tls_context(ca: bytes | None, certificate: bytes | None, key: bytes | None) -> ssl.SSLContext:
    """A client context that trusts `ca` alone and presents `certificate` (all PEM)."""
    context = ssl.create_default_context(cadata=ca.decode() if ca else None)
    if certificate and key:
        # The ssl module loads certificates from files alone.
        with tempfile.NamedTemporaryFile() as file:
            file.write(certificate + b"\n" + key)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def load(path: Path) -> Session:
    """A session to the server of the current context of `path`. Its files may be replaced while it lasts: certificates
    are renewed. Raises KubeconfigError."""
    server, tls, token, files = _read(path)
    followed = Followed(files)

    def renewed() -> ssl.SSLContext | None:
        if not followed.changed():
            return None
        try:
            return _read(path)[1]
        except KubeconfigError as error:
            log.warning("%s; the certificates before are kept", error)
            return None

    return Session(HttpTransport(server, tls, token, renewed))


def _read(path: Path) -> tuple[str, ssl.SSLContext, Callable[[], str], list[Path]]:
    """The server, what to present and to trust, the token, and the files all that is in."""
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise KubeconfigError(f"{path}: can't be read as a kubeconfig: {error}") from error
    if not isinstance(config, dict):
        raise KubeconfigError(f"{path}: expected a kubeconfig (a YAML mapping), found {type(config).__name__}")
    current = config.get("current-context") or ""
    context = _named(config, "contexts", current, "context", path)
    cluster = _named(config, "clusters", context.get("cluster", ""), "cluster", path)
    user = _named(config, "users", context.get("user", ""), "user", path)
    server = cluster.get("server", "")
    if not server.startswith("https://"):
        raise KubeconfigError(f"{path}: server is {server!r}; expected an https:// URL")
    try:
        tls = tls_context(
            _material(cluster, "certificate-authority", path),
            _material(user, "client-certificate", path),
            _material(user, "client-key", path),
        )
    except (OSError, ssl.SSLError, ValueError) as error:
        raise KubeconfigError(f"{path}: its certificates can't be used: {error}") from error
    named = [section.get(f) for section, f in ((cluster, "certificate-authority"), (user, "client-certificate"),
                                               (user, "client-key"))]  # fmt: skip
    return server, tls, _token(user, path), [path, *(path.parent / str(file) for file in named if file)]


def in_cluster(account: Path = SERVICE_ACCOUNT) -> Session:
    """A session as the service account of the pod this runs in. Raises KubeconfigError."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise KubeconfigError("no kubeconfig is given, and this isn't a pod: KUBERNETES_SERVICE_HOST is not set")
    try:
        tls = tls_context((account / "ca.crt").read_bytes(), None, None)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise KubeconfigError(f"{account}: the pod's service account can't be used: {error}") from error
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Session(HttpTransport(server, tls, lambda: (account / "token").read_text().strip()))


def _token(user: dict[str, Any], path: Path) -> Callable[[], str]:
    """A file's token is read for each request: whoever wrote it there replaces it before it expires."""
    if file := user.get("tokenFile"):
        return lambda: (path.parent / str(file)).read_text().strip()
    token = str(user.get("token") or "")
    return lambda: token

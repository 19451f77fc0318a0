"""NSD as a secondary, for tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.ports import free_port

SERVER = """
server:
    port: {port}
    ip-address: 127.0.0.1
    username: ""
    chroot: ""
    zonesdir: "{here}"
    database: ""
    pidfile: "{here}/nsd.pid"
    xfrdfile: "{here}/xfrd.state"
    xfrdir: "{here}"
    zonelistfile: "{here}/zone.list"
    server-count: 1
remote-control:
    control-enable: no
"""
ZONE = """
zone:
    name: "{zone}"
    zonefile: "{here}/{zone}.zone"
    allow-notify: 127.0.0.1 NOKEY
    request-xfr: {how}{primary}@{primary_port} NOKEY
"""


@contextmanager
def nsd(
    here: Path, zones: Sequence[str], primary: str, primary_port: int, *, how: str = "", port: int = 0
) -> Iterator[int]:
    """NSD on 127.0.0.1, told of changes from there, with `zones` fetched from `primary`; its port.

    `how` is "" (IXFR first) or "AXFR ".
    """
    port = port or free_port()
    parts = [SERVER.format(here=here, port=port)]
    parts += [ZONE.format(here=here, zone=z, primary=primary, primary_port=primary_port, how=how) for z in zones]
    config = here / "nsd.conf"
    config.write_text("".join(parts))
    with (here / "nsd.log").open("wb") as log:
        running = subprocess.Popen(["/usr/sbin/nsd", "-d", "-c", str(config)], stdout=log, stderr=log)
    try:
        yield port
    except AssertionError as error:
        error.add_note(f"nsd: {running.poll() or 'running'}: {(here / 'nsd.log').read_text()}")
        raise
    finally:
        running.terminate()
        running.wait()

"""What an API server does under attack: malformed, deep, huge, truncated and slow requests from a client that may all.

    python bench/api_hostile.py [requests]       50,000 by default

Every answer's status is counted; another client asks for its namespace meanwhile, and what it waits is measured, as is
the server's memory. Any answer of 5xx fails the run.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import uvloop

from figures import show, show_percentiles
from support.custom import definition, of
from support.serving import Served
from support.shapes import SAMPLES, misshapen
from wire import Wire

ATTACKERS = 24
SEED = 20
MAPS = "/api/v1/namespaces/default/configmaps"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
RULED = "/apis/example.com/v1/namespaces/default/ruleds"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
MEDIA = ("application/json", "application/yaml", "application/json-patch+json", "application/merge-patch+json",
         "application/strategic-merge-patch+json", "application/apply-patch+yaml", "text/html", "",
         "application/vnd.kubernetes.protobuf", "application/json; charset=\xff")  # fmt: skip
PATHS = (MAPS, f"{MAPS}/m", f"{MAPS}/m/status", "/api/v1/namespaces/default/services", "/api/v1/nodes", CRDS, RULED,
         ROLES, "/apis/authorization.k8s.io/v1/subjectaccessreviews",
         f"{RULED}/x", f"{RULED}/x/scale", "/api/v1/../../etc/passwd", "/api/v1/namespaces/%2e%2e/configmaps",
         "//", "/%00",
         "/api/v1/namespaces/default/configmaps/%ff", "/openapi/v3/" + "x" * 2000, "/apis/" + "a/" * 500,
         f"{MAPS}?limit=-1", f"{MAPS}?limit=99999999999999999999999", f"{MAPS}?continue=AAAA",
         f"{MAPS}?resourceVersion=x",
         f"{MAPS}?labelSelector=" + "a%2C" * 1500, f"{MAPS}?labelSelector=((((", f"{MAPS}?fieldSelector=" + "a" * 3000,
         f"{MAPS}?watch=true&timeoutSeconds=1&resourceVersion=1&labelSelector=a%20in%20(", f"{MAPS}?dryRun=x",
         f"{MAPS}?fieldManager=%00%01", "/api/v1/namespaces/default/pods/x/log?tailLines=x",
         "/api/v1/namespaces/default/pods/x/exec?command=" + "x" * 500)  # fmt: skip
RULES = ("self.all(a, self.all(b, self.all(c, true)))", "self.matches('(a+)+$')", "(" * 500, "x" * 9000, "1/0 == 1",
         "self.map(a, self.map(b, a)).size() > 0", "'" + "a" * 4000 + "'.matches(self)", "self.split('')",
         "\x00")  # fmt: skip


PATTERNS = ("^(a+)+$", "(a|aa)+$", "(?=x)", "[", "a{1,1000000}")


def bodies(dice: random.Random) -> list[bytes]:
    """A body of each hostile sort."""
    deep = dice.choice((100, 900, 5000, 60_000))
    rule = dice.choice(RULES)
    schema = of({"a": {"type": "array", "items": {"type": "string"}, "x-kubernetes-validations": [{"rule": rule}]},
                 "b": {"type": "string", "pattern": dice.choice(PATTERNS)}})  # fmt: skip
    ruled = {"apiVersion": "example.com/v1", "kind": "Ruled", "metadata": {"name": f"r{dice.randrange(50)}"},
             "a": ["a" * dice.randrange(200)] * dice.randrange(300), "b": "a" * dice.randrange(5000) + "b"}  # fmt: skip
    return [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        bytes(dice.randrange(256) for _ in range(dice.randrange(200))),
        b"[" * deep,
        b'{"a":' * deep + b"1" + b"}" * deep,
        b'{"metadata":{"name":"m","labels":' + b'{"a":' * min(deep, 900) + b"1" + b"}" * min(deep, 900) + b"}}",
        b'{"metadata":{"name":"' + b"x" * dice.choice((300, 70_000)) + b'"}}',
        b'{"metadata":{"name":"n","generation":' + b"9" * dice.choice((19, 400, 9000)) + b"}}",
        b'{"metadata":{"name":1e999}}',
        b'{"metadata":{"name":"\xff\xfe"}}',
        b'{"metadata":{"name":"\\ud800"}}',
        b'{"metadata":null,"data":null,"spec":[],"status":1}',
        b'{"apiVersion":1,"kind":[],"metadata":{"annotations":{"a":1},"finalizers":["x"],"ownerReferences":[1]}}',
        b'{"metadata":{"name":"m","managedFields":[{"fieldsV1":{"f:a":{"k:{":1}}}]},"data":{"a":"b"}}',
        b"a: &a [x,x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n",
        b"- " * min(deep, 900),
        b"!!python/object/apply:os.system ['true']",
        json.dumps(
            [{"op": "copy", "from": "/metadata", "path": f"/x{n}"} for n in range(dice.randrange(300))]
        ).encode(),
        json.dumps([{"op": dice.choice(("add", "move", "test", "x")), "path": "/" * dice.randrange(9)}]).encode(),
        b'[{"op":"add","path":"/data/a","value":1}]',
        b"k8s\0" + bytes(dice.randrange(256) for _ in range(dice.randrange(100))),
        json.dumps(
            {"metadata": {"name": f"m{dice.randrange(100)}"}, "data": {"k": "v" * dice.randrange(2000)}}
        ).encode(),
        json.dumps(definition("Hostile", schema) | {"kind": "CustomResourceDefinition"}).encode(),
        json.dumps(ruled).encode(),
        json.dumps(dice.choice(MISSHAPEN)).encode(),
    ]


# Objects whose parts are of other types than they should be: for the kinds that PATHS leads to.
MISSHAPEN = [
    {"metadata": {"name": f"x{number % 50}"}} | tree
    for plural in ("configmaps", "services", "customresourcedefinitions", "clusterroles")
    for number, tree in enumerate(misshapen(SAMPLES[plural], each=2))
]


class Attacker:
    def __init__(self, port: int, tls: ssl.SSLContext, dice: random.Random, seen: Counter[int]) -> None:
        self._port, self._tls, self._dice, self._seen = port, tls, dice, seen
        self._bodies = [body for _ in range(8) for body in bodies(dice)]
        self._wire: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def attack(self) -> None:
        if self._wire is None:
            self._wire = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._tls, limit=1 << 22)
        reader, writer = self._wire
        dice = self._dice
        body, method, path = dice.choice(self._bodies), dice.choice(METHODS), dice.choice(PATHS)
        media = dice.choice(MEDIA) if dice.random() < 0.5 else MEDIA[0]
        length = len(body) + (7 if (cut := dice.random() < 0.02) else 0)
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {media}\r\nContent-Length: {length}\r\n"
        if dice.random() < 0.02:
            head += dice.choice(
                (f"X-Long: {'x' * 20_000}\r\n", "Bad Header\r\n", "Accept: \xff;q=x\r\n", "Expect: 7\r\n")
            )
        try:
            writer.write(head.encode("latin-1") + b"\r\n" + body)
            if cut:  # truncated: the rest never comes
                writer.close()
                self._wire = None
                self._seen[0] += 1
                return
            async with asyncio.timeout(60):
                status, closed = await answer(reader, method)
            self._seen[status] += 1
            if closed:
                writer.close()
                self._wire = None
        except (OSError, asyncio.IncompleteReadError, ValueError):
            self._seen[-1] += 1  # the server ended the connection
            writer.close()
            self._wire = None


async def answer(reader: asyncio.StreamReader, method: str) -> tuple[int, bool]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head[9:12])
    if b"transfer-encoding: chunked" in head:
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    elif method != "HEAD" and b"content-length: " in head:
        await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    return status, b"connection: close" in head or (status == 400 and b"application/json" not in head)


async def other(kubeconfig: Path) -> None:
    """In a process of its own: print what somebody else waits for each answer, in milliseconds, until killed."""
    wire = await Wire.open(kubeconfig)
    while True:
        began = time.perf_counter()
        status, _ = await wire.ask("GET", "/api/v1/namespaces/default")
        assert status == 200, status
        print((time.perf_counter() - began) * 1000, flush=True)
        await asyncio.sleep(0.02)


def memory(pid: int) -> float:
    """MiB that a process has in memory."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


async def slow(port: int, tls: ssl.SSLContext, until: asyncio.Event) -> None:
    """Twenty clients that send a byte a second, and twenty that watch and never read."""
    held = []
    for number in range(40):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        if number % 2:
            writer.write(b"POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n")
        else:
            writer.write(f"GET {MAPS}?watch=true HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            writer.transport.pause_reading()  # type: ignore[attr-defined]
        held.append(writer)
    while not until.is_set():
        for writer in held[1::2]:
            if not writer.transport.is_closing():
                writer.write(b" ")
        await asyncio.sleep(1)
    for writer in held:
        writer.transport.abort()


async def main(count: int) -> int:
    with tempfile.TemporaryDirectory() as directory:
        served = Served(Path(directory))
        served._files.authority.client("mallory", "mallory", "system:masters")
        await served.start()
        try:
            return await run(served, Path(directory), count)
        finally:
            await served.close()


async def run(served: Served, directory: Path, count: int) -> int:
    tls = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    tls.load_cert_chain(directory / "mallory.crt", directory / "mallory.key")
    port, seen, over = served._files.port, Counter[int](), asyncio.Event()
    mine = await Wire.open(served.kubeconfig)
    plain = {"type": "array", "items": {"type": "string"},
             "x-kubernetes-validations": [{"rule": "self.all(a, self.all(b, a == b))"}]}  # fmt: skip
    ruled = definition("Ruled", of({"a": plain, "b": {"type": "string", "pattern": "^(a+)+$"}}))
    assert (await mine.ask("POST", CRDS, json.dumps(ruled).encode()))[0] == 201
    before = memory(served.pid)
    asking = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "other", str(served.kubeconfig), stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert asking.stdout is not None
    heard = asyncio.create_task(asking.stdout.read())
    slowly = asyncio.create_task(slow(port, tls, over))
    numbers = iter(range(count))

    async def work(index: int) -> None:
        attacker = Attacker(port, tls, random.Random(SEED * 1000 + index), seen)
        for _ in numbers:
            await attacker.attack()

    began = time.perf_counter()
    await asyncio.gather(*(work(index) for index in range(ATTACKERS)))
    took = time.perf_counter() - began
    over.set()
    asking.kill()
    waited = [float(line) for line in (await heard).split()]
    await asking.wait()
    await slowly
    show("hostile_requests", sum(seen.values()), "requests")
    show("hostile_rate", sum(seen.values()) / took, "requests/s")
    for status, number in sorted(seen.items()):
        show(f"answers_{ {0: 'truncated', -1: 'hung_up'}.get(status, status) }".replace(" ", ""), number, "answers")
    failures = sum(number for status, number in seen.items() if status >= 500)
    show("answers_of_5xx", failures, "answers")
    show_percentiles("other_client_waited", waited, "ms")
    show("memory_before", before, "MiB")
    show("memory_after", memory(served.pid), "MiB")
    return failures


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if sys.argv[1:2] == ["other"]:
            runner.run(other(Path(sys.argv[2])))
        sys.exit(1 if runner.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)) else 0)

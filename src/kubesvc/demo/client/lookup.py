"""lookup.py NAME [TYPE]: ask the pod's DNS server and print the answer's records, one a line."""

import random
import socket
import struct
import sys

TYPES = {"A": 1, "CNAME": 5, "AAAA": 28}
NAMES = {number: name for name, number in TYPES.items()}
CODES = {0: "NOERROR", 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}

name, kind = sys.argv[1], (sys.argv[2:] or ["A"])[0]
server = next(line.split()[1] for line in open("/etc/resolv.conf") if line.startswith("nameserver"))
question = b"".join(bytes([len(part)]) + part.encode() for part in name.rstrip(".").split(".")) + b"\0"
query = struct.pack("!6H", random.randrange(65536), 0x0100, 1, 0, 0, 0) + question + struct.pack("!2H", TYPES[kind], 1)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.settimeout(5)
    udp.sendto(query, (server, 53))
    reply = udp.recv(65535)


def read_name(at):
    parts, end = [], None
    while reply[at]:
        if reply[at] >= 0xC0:
            end = end or at + 2
            at = struct.unpack_from("!H", reply, at)[0] & 0x3FFF
        else:
            parts.append(reply[at + 1 : at + 1 + reply[at]].decode())
            at += 1 + reply[at]
    return ".".join(parts), end or at + 1


flags, _, answers = struct.unpack_from("!3H", reply, 2)
print(f"{server} answers {CODES.get(flags & 15, flags & 15)}")
at = 12 + len(question) + 4
for _ in range(answers):
    owner, at = read_name(at)
    rtype, _, ttl, size = struct.unpack_from("!2HIH", reply, at)
    at += 10
    data = (
        socket.inet_ntoa(reply[at : at + 4])
        if rtype == 1
        else read_name(at)[0]
        if rtype == 5
        else reply[at : at + size].hex()
    )
    at += size
    print(f"{owner} {ttl} {NAMES.get(rtype, rtype)} {data}")

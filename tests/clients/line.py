"""Speaks ISO 8583 over TLS with pyiso8583.

Reads one JSON object on standard input: address ([host, port]), ca, certificate and key (files), spec
("default" or "default_ascii"), messages (a list of objects: "t" and field numbers to text) and, if it is
true, raw: each message is hex of what is sent as it is. All are sent before any reply is read. Prints a
JSON list of the replies in the order in which they came; the connection's end ends it.
"""

import json
import socket
import ssl
import struct
import sys

import iso8583
from iso8583 import specs

plan = json.load(sys.stdin)
spec = getattr(specs, plan["spec"])


def receive(line, count):
    read = b""
    while len(read) < count:
        more = line.recv(count - len(read))
        if not more:
            return None
        read += more
    return read


trust = ssl.create_default_context(cafile=plan["ca"])
if plan.get("certificate"):
    trust.load_cert_chain(plan["certificate"], plan["key"])
told = []
with socket.create_connection(plan["address"], timeout=20) as plain:
    with trust.wrap_socket(plain, server_hostname=plan["address"][0]) as line:
        for message in plan["messages"]:
            raw = bytes.fromhex(message) if plan.get("raw") else iso8583.encode(message, spec)[0]
            line.sendall(struct.pack(">H", len(raw)) + bytes(raw))
        while len(told) < plan["replies"]:
            try:
                length = receive(line, 2)
            except OSError:
                break
            if length is None:
                break
            reply = receive(line, struct.unpack(">H", length)[0])
            decoded, _ = iso8583.decode(reply, spec)
            told.append(dict(decoded))
print(json.dumps(told))

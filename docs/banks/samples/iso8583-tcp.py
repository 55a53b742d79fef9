#!/usr/bin/env python3
# Asks for a payment in ISO 8583:1987 with pyiso8583 (pip install pyiso8583), and prints the answer.
# `standin bank listen --format iso8583` prints what to export: STANDIN_URL, STANDIN_ENCODING and, with
# --tls, STANDIN_CA, STANDIN_CERTIFICATE, STANDIN_KEY. The card is a test card, as the networks publish it.

import os
import socket
import ssl
import struct
from urllib.parse import urlsplit

import iso8583
from iso8583 import specs

message = {
    "t": "0100",
    "2": "4111111111111111",
    "3": "000000",
    "4": "000000001230",
    "7": "1130101112",
    "11": "000001",
    "32": "123456",
    "37": "113010000001",
    "41": "TERM0001",
    "42": "GROCER-0042    ",
    "43": f"{'Target':<25}{'Cincinnati':<13}US",
    "49": "840",
}
is_binary = os.environ.get("STANDIN_ENCODING") == "ascii-binary"
spec = specs.default if is_binary else specs.default_ascii
url = urlsplit(os.environ["STANDIN_URL"])


def connect():
    """Over TLS the certificate says which bank this is."""
    plain = socket.create_connection((url.hostname, url.port), timeout=5)
    if url.scheme == "iso8583":
        return plain
    trust = ssl.create_default_context(cafile=os.environ["STANDIN_CA"])
    trust.load_cert_chain(os.environ["STANDIN_CERTIFICATE"], os.environ["STANDIN_KEY"])
    return trust.wrap_socket(plain, server_hostname=url.hostname)


def receive(line, count):
    read = b""
    while len(read) < count:
        more = line.recv(count - len(read))
        if not more:
            raise SystemExit("the edge closed the connection without an answer")
        read += more
    return read


with connect() as line:
    raw, _ = iso8583.encode(message, spec)
    line.sendall(struct.pack(">H", len(raw)) + raw)
    (length,) = struct.unpack(">H", receive(line, 2))
    reply, _ = iso8583.decode(receive(line, length), spec)
print(reply["t"], reply["39"], reply.get("38", ""))

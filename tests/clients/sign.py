"""A relay that signs: whatever it is asked on loopback it signs as a bank and passes on to an edge.

Arguments: the edge's address (HOST:PORT) and the bank's Standard Webhooks secret. Prints the port that
it listens at, and ends with its standard input.
"""

import datetime
import http.client
import http.server
import sys
import threading
import uuid

from standardwebhooks.webhooks import Webhook

EDGE, SECRET = sys.argv[1], sys.argv[2]
# Of one hop, or made anew here.
OWN = {"connection", "content-length", "host", "transfer-encoding", "keep-alive"}


class Relay(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def relay(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in OWN}
        now = datetime.datetime.now(tz=datetime.timezone.utc)
        message = "msg_" + uuid.uuid4().hex
        # The library signs text; other bytes are signed as it would.
        signature = Webhook(SECRET).sign(message, now, body.decode()) if body.isascii() else None
        headers["webhook-id"] = message
        headers["webhook-timestamp"] = str(int(now.timestamp()))
        headers["webhook-signature"] = signature or sign_bytes(message, now, body)
        edge = http.client.HTTPConnection(EDGE, timeout=20)
        edge.request(self.command, self.path, body=body, headers=headers)
        reply = edge.getresponse()
        told = reply.read()
        self.send_response(reply.status)
        for name, value in reply.getheaders():
            if name.lower() not in OWN:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(told)
        edge.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = do_TRACE = relay
    do_QUERY = relay

    def log_message(self, *_):
        pass


def sign_bytes(message, now, body):
    """The same signature over bytes that are not ASCII."""
    import base64
    import hashlib
    import hmac

    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    text = f"{message}.{int(now.timestamp())}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Relay)
print(server.server_port, flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()

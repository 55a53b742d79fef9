"""Signs and sends requests with the libraries that banks' platforms publish.

Reads a JSON list of requests on standard input, sends each in turn and prints one JSON object a line:
{"status": 200, "replayed": false, "body": "..."}, with status 0 and the reason as body when there was
no reply. A request:

  url          where to, https://
  scheme       "standard-webhooks", "stripe", "lithic" (the same, and Lithic's own library would take
               it) or "basic"
  secret       as the bank was given it
  body         what is signed; for Stripe it may be an object, which becomes an event of the library's
  message      the signed name of the message; a fresh one if it is left out
  sent_body    what is sent, if it is another
  age          how many seconds ago it was signed; negative: in the future
  drop         a header that is left out
  ca           file of the authority that the edge's certificate is of
  certificate, key   files of the client's own certificate, if it shows one
"""

import base64
import datetime
import json
import ssl
import sys
import time
import urllib.error
import urllib.request
import uuid

import stripe
from lithic import Lithic
from standardwebhooks.webhooks import Webhook
from stripe import WebhookSignature


def signed(request):
    """The signature headers of one request, by the platform's own library."""
    now = int(time.time()) - request.get("age", 0)
    if request["scheme"] == "basic":
        credentials = base64.b64encode(request["secret"].encode()).decode()
        return {"Authorization": "Basic " + credentials}
    if request["scheme"] == "stripe":
        header = WebhookSignature.generate_signature_header(
            request["body"], request["secret"], now
        )
        return {"Stripe-Signature": header}
    message = request.get("message") or "msg_" + uuid.uuid4().hex
    at = datetime.datetime.fromtimestamp(now, tz=datetime.timezone.utc)
    headers = {
        "webhook-id": message,
        "webhook-timestamp": str(now),
        "webhook-signature": Webhook(request["secret"]).sign(message, at, request["body"]),
    }
    if request["scheme"] == "lithic":
        client = Lithic(api_key="none")
        client.webhooks.verify_signature(request["body"], headers, secret=request["secret"])
    return headers


def event(body):
    """The text of an event as Stripe's library has it."""
    event = stripe.Event.construct_from(body, "none")
    asked = event.data.object
    assert isinstance(asked, stripe.issuing.Authorization), type(asked)
    assert asked.pending_request.amount == body["data"]["object"]["pending_request"]["amount"]
    return json.dumps(event.to_dict())


def send(request):
    if isinstance(request["body"], dict):
        request["body"] = event(request["body"])
    headers = {"Content-Type": "application/json", **signed(request)}
    headers = {name: value for name, value in headers.items() if name != request.get("drop")}
    trust = ssl.create_default_context(cafile=request["ca"])
    if "certificate" in request:
        trust.load_cert_chain(request["certificate"], request["key"])
    body = request.get("sent_body", request["body"]).encode()
    call = urllib.request.Request(request["url"], data=body, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(call, timeout=20, context=trust) as reply:
            return told(reply.status, reply.headers, reply.read())
    except urllib.error.HTTPError as reply:
        return told(reply.code, reply.headers, reply.read())
    except OSError as error:
        return {"status": 0, "replayed": False, "body": str(error)}


def told(status, headers, body):
    replayed = headers.get("Idempotent-Replayed") == "true"
    return {"status": status, "replayed": replayed, "body": body.decode()}


for one in json.load(sys.stdin):
    print(json.dumps(send(one)), flush=True)

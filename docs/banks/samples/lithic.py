#!/usr/bin/env python3
# Sends Lithic's card_authorization.approval_request, signed as Lithic signs: the standard library alone.
# `standin bank listen --format lithic` prints what to export: STANDIN_URL, STANDIN_BANK, STANDIN_BANK_SECRET.
# To check a signature by: secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, id msg_1, time 1700000000,
# body {"id":"evt_1"}: v1,YvZ0WbZa1/aSr6rYI+WcCNp6iQc1VGsNE8L2cBNlvT4=

import base64
import hashlib
import hmac
import json
import os
import time
import urllib.error
import urllib.request


def signed(secret, message, now, body):
    """Signature headers, as Standard Webhooks has them."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    text = f"{message}.{now}.".encode() + body
    tag = base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
    return {"webhook-id": message, "webhook-timestamp": str(now), "webhook-signature": "v1," + tag}


body = json.dumps({
    "event_type": "card_authorization.approval_request",
    "token": "sample-1",
    "status": "AUTHORIZATION",
    "amounts": {"cardholder": {"amount": 1230, "currency": "USD"}},
    "card": {"token": "5e0a1b7c-3f42-4d68-9a1e-000000000123"},
    "merchant": {
        "descriptor": "Target",
        "street_address": "123 Main St",
        "city": "Cincinnati",
        "state": "OH",
        "postal_code": "45202",
        "acceptor_id": "GROCER-0042",
    },
}).encode()
url = f"{os.environ['STANDIN_URL']}/v1/banks/{os.environ['STANDIN_BANK']}/authorizations"
secret = os.environ["STANDIN_BANK_SECRET"]
headers = {"Content-Type": "application/json", **signed(secret, "msg_sample_1", int(time.time()), body)}
request = urllib.request.Request(url, data=body, headers=headers, method="POST")
try:
    reply = urllib.request.urlopen(request, timeout=5)
except urllib.error.HTTPError as declined:  # 402 is an answer, too
    reply = declined
print(reply.status, reply.headers.get("Idempotent-Replayed", ""))
print(reply.read().decode())

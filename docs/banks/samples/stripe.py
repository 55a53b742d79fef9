#!/usr/bin/env python3
# Sends Stripe's event issuing_authorization.request, signed as Stripe signs: the standard library alone.
# `standin bank listen --format stripe` prints what to export: STANDIN_URL, STANDIN_BANK, STANDIN_BANK_SECRET.
# To check a signature by: secret whsec_test_secret, time 1700000000,
# body {"id":"evt_1"}: t=1700000000,v1=248a374f50f943a28b0f6ab50faf9a7e7e29b710fa26df9fb1618b9bf8ea9c9a

import hashlib
import hmac
import json
import os
import time
import urllib.error
import urllib.request


def signed(secret, now, body):
    """The signature header, as Stripe makes it: the whole secret is the key, prefix and all."""
    tag = hmac.new(secret.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Stripe-Signature": f"t={now},v1={tag}"}


body = json.dumps({
    "id": "evt_sample_1",
    "object": "event",
    "api_version": "2024-12-18.acacia",
    "type": "issuing_authorization.request",
    "data": {"object": {
        "id": "iauth_sample_1",
        "object": "issuing.authorization",
        "card": {"id": "ic_example_123", "cardholder": {"id": "ich_example_123"}},
        "cardholder": "ich_example_123",
        "merchant_data": {
            "name": "Target",
            "city": "Cincinnati",
            "state": "OH",
            "postal_code": "45202",
            "network_id": "GROCER-0042",
        },
        "pending_request": {"amount": 1230, "currency": "usd", "is_amount_controllable": False},
        "request_history": [],
    }},
}).encode()
url = f"{os.environ['STANDIN_URL']}/v1/banks/{os.environ['STANDIN_BANK']}/authorizations"
secret = os.environ["STANDIN_BANK_SECRET"]
headers = {"Content-Type": "application/json", **signed(secret, int(time.time()), body)}
request = urllib.request.Request(url, data=body, headers=headers, method="POST")
try:
    reply = urllib.request.urlopen(request, timeout=5)
except urllib.error.HTTPError as declined:  # 402 is an answer, too
    reply = declined
print(reply.status, reply.headers.get("Idempotent-Replayed", ""))
print(reply.read().decode())

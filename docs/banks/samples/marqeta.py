#!/usr/bin/env python3
# Sends Marqeta's request to fund a transaction, with user and password over mutual TLS: the standard library alone.
# `standin bank listen --format marqeta` prints what to export: STANDIN_URL, STANDIN_BANK,
# STANDIN_BANK_SECRET, STANDIN_CA, STANDIN_CERTIFICATE, STANDIN_KEY.
# To check a signature by: secret marqeta:sesame-street:
# Basic bWFycWV0YTpzZXNhbWUtc3RyZWV0

import base64
import json
import os
import ssl
import urllib.error
import urllib.request


def signed(secret):
    """User and password; that it is the bank the connection proves."""
    return {"Authorization": "Basic " + base64.b64encode(secret.encode()).decode()}


body = json.dumps({
    "type": "authorization",
    "card_token": "card-example-123",
    "user_token": "user-example-123",
    "gpa_order": {
        "currency_code": "USD",
        "jit_funding": {
            "token": "sample-1",
            "method": "pgfs.authorization",
            "user_token": "user-example-123",
            "amount": 12.3,
        },
    },
    "card_acceptor": {
        "mid": "GROCER-0042",
        "name": "Target",
        "address": "123 Main St",
        "city": "Cincinnati",
        "state": "OH",
        "postal_code": "45202",
    },
}).encode()
url = f"{os.environ['STANDIN_URL']}/v1/banks/{os.environ['STANDIN_BANK']}/authorizations"
secret = os.environ["STANDIN_BANK_SECRET"]
headers = {"Content-Type": "application/json", **signed(secret)}
trust = ssl.create_default_context(cafile=os.environ["STANDIN_CA"])
trust.load_cert_chain(os.environ["STANDIN_CERTIFICATE"], os.environ["STANDIN_KEY"])
request = urllib.request.Request(url, data=body, headers=headers, method="POST")
try:
    reply = urllib.request.urlopen(request, timeout=5, context=trust)
except urllib.error.HTTPError as declined:  # 402 is an answer, too
    reply = declined
print(reply.status, reply.headers.get("Idempotent-Replayed", ""))
print(reply.read().decode())

#!/bin/sh
# Sends Marqeta's request to fund a transaction, with user and password over mutual TLS: curl and openssl.
# `standin bank listen --format marqeta` prints what to export: STANDIN_URL, STANDIN_BANK,
# STANDIN_BANK_SECRET, STANDIN_CA, STANDIN_CERTIFICATE, STANDIN_KEY.
# To check a signature by: secret marqeta:sesame-street:
# Basic bWFycWV0YTpzZXNhbWUtc3RyZWV0
set -eu

BODY='{"type":"authorization","card_token":"card-example-123","user_token":"user-example-123","gpa_order":{"currency_code":"USD","jit_funding":{"token":"sample-1","method":"pgfs.authorization","user_token":"user-example-123","amount":12.30}},"card_acceptor":{"mid":"GROCER-0042","name":"Target","address":"123 Main St","city":"Cincinnati","state":"OH","postal_code":"45202"}}'
AUTH=$(printf %s "$STANDIN_BANK_SECRET" | openssl base64 -A)
# Through a pipe, so that nobody reads it from the list of processes.
printf 'header = "Authorization: Basic %s"\n' "$AUTH" |
  curl -sS -i --config - --cacert "$STANDIN_CA" --cert "$STANDIN_CERTIFICATE" --key "$STANDIN_KEY" \
    "$STANDIN_URL/v1/banks/$STANDIN_BANK/authorizations" -H 'content-type: application/json' --data-binary "$BODY"

#!/bin/sh
# Sends Lithic's card_authorization.approval_request, signed as Lithic signs: curl and openssl.
# `standin bank listen --format lithic` prints what to export: STANDIN_URL, STANDIN_BANK, STANDIN_BANK_SECRET.
# To check a signature by: secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, id msg_1, time 1700000000,
# body {"id":"evt_1"}: v1,YvZ0WbZa1/aSr6rYI+WcCNp6iQc1VGsNE8L2cBNlvT4=
set -eu

BODY='{"event_type":"card_authorization.approval_request","token":"sample-1","status":"AUTHORIZATION","amounts":{"cardholder":{"amount":1230,"currency":"USD"}},"card":{"token":"5e0a1b7c-3f42-4d68-9a1e-000000000123"},"merchant":{"descriptor":"Target","street_address":"123 Main St","city":"Cincinnati","state":"OH","postal_code":"45202","acceptor_id":"GROCER-0042"}}'
ID=msg_sample_1; TS=$(date +%s)
KEY=$(printf %s "${STANDIN_BANK_SECRET#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
SIG=$(printf %s "$ID.$TS.$BODY" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$KEY" -binary | openssl base64 -A)
curl -sS -i "$STANDIN_URL/v1/banks/$STANDIN_BANK/authorizations" -H 'content-type: application/json' \
  -H "webhook-id: $ID" -H "webhook-timestamp: $TS" -H "webhook-signature: v1,$SIG" --data-binary "$BODY"

#!/bin/sh
# Asks for a payment in Standin's own format, signed as Standard Webhooks has it: curl and openssl.
# `standin bank listen` prints what to export: STANDIN_URL, STANDIN_BANK, STANDIN_BANK_SECRET.
# To check a signature by: secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, id msg_1, time 1700000000,
# body {"id":"evt_1"}: v1,YvZ0WbZa1/aSr6rYI+WcCNp6iQc1VGsNE8L2cBNlvT4=
set -eu

BODY='{"shopper_id":123,"amount":12.30,"merchant":{"name":"Target","address":"123 Main St"},"transaction_id":"sample-1"}'
ID=msg_$(date +%s)_$$; TS=$(date +%s)
KEY=$(printf %s "${STANDIN_BANK_SECRET#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
SIG=$(printf %s "$ID.$TS.$BODY" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$KEY" -binary | openssl base64 -A)
curl -sS -i "$STANDIN_URL/v1/banks/$STANDIN_BANK/authorizations" -H 'content-type: application/json' \
  -H "webhook-id: $ID" -H "webhook-timestamp: $TS" -H "webhook-signature: v1,$SIG" --data-binary "$BODY"

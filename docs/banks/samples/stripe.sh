#!/bin/sh
# Sends Stripe's event issuing_authorization.request, signed as Stripe signs: curl and openssl.
# `standin bank listen --format stripe` prints what to export: STANDIN_URL, STANDIN_BANK, STANDIN_BANK_SECRET.
# To check a signature by: secret whsec_test_secret, time 1700000000,
# body {"id":"evt_1"}: t=1700000000,v1=248a374f50f943a28b0f6ab50faf9a7e7e29b710fa26df9fb1618b9bf8ea9c9a
set -eu

BODY='{"id":"evt_sample_1","object":"event","api_version":"2024-12-18.acacia","type":"issuing_authorization.request","data":{"object":{"id":"iauth_sample_1","object":"issuing.authorization","card":{"id":"ic_example_123","cardholder":{"id":"ich_example_123"}},"cardholder":"ich_example_123","merchant_data":{"name":"Target","city":"Cincinnati","state":"OH","postal_code":"45202","network_id":"GROCER-0042"},"pending_request":{"amount":1230,"currency":"usd","is_amount_controllable":false},"request_history":[]}}}'
TS=$(date +%s)
KEY=$(printf %s "$STANDIN_BANK_SECRET" | od -An -v -tx1 | tr -d ' \n')
SIG=$(printf %s "$TS.$BODY" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$KEY" | sed 's/^.*= *//')
curl -sS -i "$STANDIN_URL/v1/banks/$STANDIN_BANK/authorizations" -H 'content-type: application/json' \
  -H "Stripe-Signature: t=$TS,v1=$SIG" --data-binary "$BODY"

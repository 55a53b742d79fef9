// Sends Stripe's event issuing_authorization.request, signed as Stripe signs: Node 18 or later, no packages.
// `standin bank listen --format stripe` prints what to export: STANDIN_URL, STANDIN_BANK, STANDIN_BANK_SECRET.
// To check a signature by: secret whsec_test_secret, time 1700000000,
// body {"id":"evt_1"}: t=1700000000,v1=248a374f50f943a28b0f6ab50faf9a7e7e29b710fa26df9fb1618b9bf8ea9c9a

import { createHmac } from "node:crypto";

// The signature header, as Stripe makes it: the whole secret is the key, prefix and all.
function signed(secret, now, body) {
  const tag = createHmac("sha256", secret).update(`${now}.${body}`).digest("hex");
  return { "Stripe-Signature": `t=${now},v1=${tag}` };
}

const body = JSON.stringify({
  id: "evt_sample_1",
  object: "event",
  api_version: "2024-12-18.acacia",
  type: "issuing_authorization.request",
  data: { object: {
    id: "iauth_sample_1",
    object: "issuing.authorization",
    card: { id: "ic_example_123", cardholder: { id: "ich_example_123" } },
    cardholder: "ich_example_123",
    merchant_data: {
      name: "Target",
      city: "Cincinnati",
      state: "OH",
      postal_code: "45202",
      network_id: "GROCER-0042",
    },
    pending_request: { amount: 1230, currency: "usd", is_amount_controllable: false },
    request_history: [],
  } },
});
const { STANDIN_URL, STANDIN_BANK, STANDIN_BANK_SECRET } = process.env;
const now = Math.floor(Date.now() / 1000);
const reply = await fetch(`${STANDIN_URL}/v1/banks/${STANDIN_BANK}/authorizations`, {
  method: "POST",
  headers: { "Content-Type": "application/json", ...signed(STANDIN_BANK_SECRET, now, body) },
  body,
});
console.log(reply.status, reply.headers.get("idempotent-replayed") ?? "");
console.log(await reply.text());

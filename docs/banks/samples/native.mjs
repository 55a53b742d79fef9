// Asks for a payment in Standin's own format, signed as Standard Webhooks has it: Node 18 or later, no packages.
// `standin bank listen` prints what to export: STANDIN_URL, STANDIN_BANK, STANDIN_BANK_SECRET.
// To check a signature by: secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, id msg_1, time 1700000000,
// body {"id":"evt_1"}: v1,YvZ0WbZa1/aSr6rYI+WcCNp6iQc1VGsNE8L2cBNlvT4=

import { createHmac, randomUUID } from "node:crypto";

// Signature headers, as Standard Webhooks has them.
function signed(secret, message, now, body) {
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const tag = createHmac("sha256", key).update(`${message}.${now}.${body}`).digest("base64");
  return { "webhook-id": message, "webhook-timestamp": String(now), "webhook-signature": `v1,${tag}` };
}

const body = JSON.stringify({
  shopper_id: 123,
  amount: "12.30",
  merchant: { name: "Target", address: "123 Main St" },
  transaction_id: "sample-1",
});
const { STANDIN_URL, STANDIN_BANK, STANDIN_BANK_SECRET } = process.env;
const now = Math.floor(Date.now() / 1000);
const reply = await fetch(`${STANDIN_URL}/v1/banks/${STANDIN_BANK}/authorizations`, {
  method: "POST",
  headers: { "Content-Type": "application/json", ...signed(STANDIN_BANK_SECRET, `msg_${randomUUID()}`, now, body) },
  body,
});
console.log(reply.status, reply.headers.get("idempotent-replayed") ?? "");
console.log(await reply.text());

// Sends Marqeta's request to fund a transaction, with user and password over mutual TLS: Node 18 or later, no packages.
// `standin bank listen --format marqeta` prints what to export: STANDIN_URL, STANDIN_BANK,
// STANDIN_BANK_SECRET, STANDIN_CA, STANDIN_CERTIFICATE, STANDIN_KEY.
// To check a signature by: secret marqeta:sesame-street:
// Basic bWFycWV0YTpzZXNhbWUtc3RyZWV0

import { readFileSync } from "node:fs";
import { request } from "node:https";

// User and password; that it is the bank the connection proves.
function signed(secret) {
  return { Authorization: "Basic " + Buffer.from(secret).toString("base64") };
}

const body = JSON.stringify({
  type: "authorization",
  card_token: "card-example-123",
  user_token: "user-example-123",
  gpa_order: {
    currency_code: "USD",
    jit_funding: {
      token: "sample-1",
      method: "pgfs.authorization",
      user_token: "user-example-123",
      amount: 12.3,
    },
  },
  card_acceptor: {
    mid: "GROCER-0042",
    name: "Target",
    address: "123 Main St",
    city: "Cincinnati",
    state: "OH",
    postal_code: "45202",
  },
});
const { STANDIN_URL, STANDIN_BANK, STANDIN_BANK_SECRET } = process.env;
const { STANDIN_CA, STANDIN_CERTIFICATE, STANDIN_KEY } = process.env;
const options = {
  method: "POST",
  headers: { "Content-Type": "application/json", ...signed(STANDIN_BANK_SECRET) },
  ca: readFileSync(STANDIN_CA),
  cert: readFileSync(STANDIN_CERTIFICATE),
  key: readFileSync(STANDIN_KEY),
};
const sent = request(`${STANDIN_URL}/v1/banks/${STANDIN_BANK}/authorizations`, options, (reply) => {
  console.log(reply.statusCode, reply.headers["idempotent-replayed"] ?? "");
  reply.setEncoding("utf8").on("data", (text) => console.log(text));
});
sent.end(body);

#!/usr/bin/env node
// W3's side of the integration API in plain Node (18 or newer), without dependencies: sign a request, send it, and send it
// again until it is known what became of it. docs/integration.md says why each step is there.
//
// As a program it provisions one extension, of which the fields are on the command line, and prints the answer:
//
//	EDGVOIP_URL=https://… TENANT_ID=… BEARER_TOKEN=evb_… HMAC_SECRET=evs_… \
//	  node w3.mjs '{"sipRealm":"shop.example","extension":"1001","sipPassword":"…"}'
//
// Set NODE_EXTRA_CA_CERTS if the server's certificate is of an authority of your own.

import { createHmac, randomInt, randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { pathToFileURL } from "node:url";

const BASE = "/api/v1/integration";

// sign returns X-Signature. The key is the secret's text as it was shown, "evs_" included; path is what stands on the
// request line, with the query; body is exactly what is sent.
export function sign(secret, timestamp, method, path, body = "") {
  return createHmac("sha256", secret).update(timestamp + method + path + body, "utf8").digest("hex");
}

// now returns X-Timestamp: Unix seconds. A signature is good once, so the last digits are random: two equal requests in the
// same millisecond are still two.
function now() {
  return (Date.now() / 1000).toFixed(3) + String(randomInt(1e6)).padStart(6, "0");
}

export class Edgvoip {
  constructor({ url, bearerToken, hmacSecret, attempts = 8, pauseMs = 250 }) {
    Object.assign(this, { url, bearerToken, hmacSecret, attempts, pauseMs });
  }

  // request sends until there is an answer that sending again would not change. Without an answer it throws. Give a key of
  // your own, kept with the order, if the order can outlive this process.
  async request(method, path, fields, key = randomUUID()) {
    const body = fields === undefined ? "" : JSON.stringify(fields);
    for (let sent = 1; ; sent++) {
      const { answer, error } = await this.#send(method, BASE + path, body, key).then(
        (answer) => ({ answer }),
        (error) => ({ error }),
      );
      const again = error || answer.status >= 500 || answer.status === 408 || answer.retryAfter !== null;
      if (!again) return answer;
      if (sent >= this.attempts) {
        if (error) throw error;
        return answer;
      }
      const pause = this.pauseMs * 2 ** Math.min(sent - 1, 5) * (0.5 + Math.random() / 2);
      await delay(Math.max(pause, Number(answer?.retryAfter ?? 0) * 1000));
    }
  }

  // #send sends once, signed anew: a signature is good once, and not for long.
  async #send(method, path, body, key) {
    const timestamp = now();
    const headers = {
      Authorization: `Bearer ${this.bearerToken}`,
      "X-Timestamp": timestamp,
      "X-Signature": sign(this.hmacSecret, timestamp, method, path, body),
    };
    if (body !== "") headers["Content-Type"] = "application/json";
    if (method !== "GET") headers["Idempotency-Key"] = key;
    const response = await fetch(this.url + path, {
      method,
      headers,
      body: body === "" ? undefined : body,
      signal: AbortSignal.timeout(15_000),
    });
    return {
      status: response.status,
      replayed: response.headers.get("Idempotent-Replayed") === "true",
      retryAfter: response.headers.get("Retry-After"),
      body: await response.json(),
    };
  }
}

async function main([fields]) {
  const { EDGVOIP_URL: url, TENANT_ID: tenantId, BEARER_TOKEN: bearerToken, HMAC_SECRET: hmacSecret } = process.env;
  if (!url || !tenantId || !bearerToken || !hmacSecret || !fields) {
    console.error("usage: EDGVOIP_URL=… TENANT_ID=… BEARER_TOKEN=… HMAC_SECRET=… node w3.mjs '{\"sipRealm\":…}'");
    return 2;
  }
  const w3 = new Edgvoip({ url, bearerToken, hmacSecret });
  try {
    const { status, body } = await w3.request("POST", "/extensions", { tenantId, ...JSON.parse(fields) });
    console.log(JSON.stringify(body));
    return status < 300 ? 0 : 1;
  } catch (error) {
    console.error(`${url}: ${error.message}${error.cause ? `: ${error.cause.message}` : ""}`);
    return 1;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) process.exitCode = await main(process.argv.slice(2));

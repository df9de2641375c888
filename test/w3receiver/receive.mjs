#!/usr/bin/env node
// W3's receiving side of the webhooks in plain Node (18 or newer), without dependencies: verify a webhook, and take its event
// once. docs/integration.md says why each step is there.
//
// As a program it listens on loopback, prints each event once, and forgets everything when it ends, which W3 must not:
//
//	HMAC_SECRET=evs_… PORT=8444 node receive.mjs

import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

const MAX_SKEW = 300; // seconds
const MAX_BODY = 1 << 20;

// genuine tells whether one of the signatures is of one of the secrets. path is what stands on the request line, with the
// query; body is the Buffer that came, before anybody parsed it.
export function genuine(secrets, { timestamp, method, path, signatures, body }) {
  if (!/^\d+$/.test(timestamp ?? "") || Math.abs(Date.now() / 1000 - Number(timestamp)) > MAX_SKEW) {
    return false;
  }
  const given = (signatures ?? "").split(",").map((s) => s.trim()).filter((s) => /^sha256=[0-9a-f]{64}$/.test(s));
  return secrets.some((secret) => {
    const mac = createHmac("sha256", secret).update(timestamp + method + path, "utf8").update(body).digest();
    return given.some((s) => timingSafeEqual(Buffer.from(s.slice(7), "hex"), mac));
  });
}

// receiver returns an HTTP server that gives each event to take, once. take keeps the event, under its key, in one transaction
// with what it does, and only then resolves.
export function receiver(secrets, taken, take) {
  return createServer(async (request, response) => {
    const end = (status) => response.writeHead(status).end();
    try {
      const chunks = [];
      let size = 0;
      for await (const chunk of request) {
        chunks.push(chunk);
        if ((size += chunk.length) > MAX_BODY) {
          return end(413);
        }
      }
      const body = Buffer.concat(chunks);
      const h = request.headers;
      const signed = { timestamp: h["x-timestamp"], method: request.method, path: request.url, signatures: h["x-edgvoip-signature"], body };
      const key = h["x-idempotency-key"];
      if (!key || !genuine(secrets, signed)) {
        return end(401);
      }
      if (!taken.has(key)) {
        await take({ key, kind: h["x-edgvoip-event"], subject: h["x-edgvoip-subject"], sequence: Number(h["x-edgvoip-sequence"]), body: JSON.parse(body) });
        taken.add(key);
      }
      end(200);
    } catch (error) {
      console.error(error.message);
      end(500);
    }
  });
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const server = receiver([process.env.HMAC_SECRET], new Set(), async (event) => console.log(JSON.stringify(event)));
  server.listen(Number(process.env.PORT ?? 8444), "127.0.0.1", () => console.log(`listening on 127.0.0.1:${server.address().port}`));
}

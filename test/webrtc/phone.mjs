#!/usr/bin/env node
// A browser phone for the end-to-end tests: SIP.js in headless Chromium registers over WebSocket, places or takes one
// call, and reports what the browser's own statistics say about the media. See README.md for flags and output.
//
// Chromium is driven by its DevTools protocol over a pair of pipes. That is some thirty lines here and no dependency,
// and a browser on pipes ends when they close: it cannot outlive this process, however this process ends.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const FAILED = 1; // the phone did not do what was asked
const USAGE = 2; // the flags make no sense
const NOT_INSTALLED = 3; // Chromium or SIP.js is missing

// For hanging up and unregistering when the phone is stopped early: page.mjs gives four seconds to each.
const STOP_MS = 10_000;

const here = fileURLToPath(new URL(".", import.meta.url));
const sipjs = join(here, "node_modules/sip.js/lib");
const chromium = process.env.CHROMIUM || "/usr/bin/chromium";

function readOptions(args) {
  const { values } = parseArgs({
    args,
    options: {
      wss: { type: "string" },
      user: { type: "string" },
      realm: { type: "string" },
      password: { type: "string" },
      call: { type: "string" },
      "wait-for-call": { type: "boolean" },
      "expect-register-failure": { type: "boolean" },
      seconds: { type: "string", default: "5" },
      timeout: { type: "string" },
      verbose: { type: "boolean" },
    },
  });
  for (const name of ["wss", "user", "realm", "password"]) {
    if (!values[name]) throw new Error(`--${name} is missing`);
  }
  if (!URL.canParse(values.wss) || !/^wss?:/.test(values.wss)) {
    throw new Error("--wss wants an address like wss://127.0.0.1:8443");
  }
  if (values.call && values["wait-for-call"]) throw new Error("--call and --wait-for-call exclude each other");
  const positive = (name, value) => {
    const number = Number(value);
    if (!(number > 0 && number <= 3600)) throw new Error(`--${name} wants seconds, 3600 at most`);
    return number;
  };
  const seconds = positive("seconds", values.seconds);
  return {
    wss: values.wss,
    user: values.user,
    realm: values.realm,
    password: values.password,
    call: values.call,
    wait: values["wait-for-call"],
    expectRegisterFailure: values["expect-register-failure"],
    seconds,
    timeout: positive("timeout", values.timeout ?? seconds + 60),
    verbose: values.verbose,
  };
}

/** Serves the page, its script and SIP.js on a free port of the loopback, which browsers take for a secure context. */
async function servePage() {
  const page = `<!doctype html><meta charset="utf-8"><title>phone</title><link rel="icon" href="data:,">
<audio autoplay></audio><script type="module" src="/page.mjs"></script>`;
  const server = createServer(async (request, response) => {
    // The URL parser has resolved any "..", encoded or not, and nothing is decoded after it.
    const { pathname } = new URL(request.url, "http://localhost");
    const library = pathname.startsWith("/sip.js/") && join(sipjs, pathname.slice("/sip.js/".length));
    try {
      if (pathname === "/") {
        response.setHeader("Content-Type", "text/html").end(page);
      } else {
        const script = await readFile(library || join(here, "page.mjs"));
        response.setHeader("Content-Type", "text/javascript").end(script);
      }
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  const close = () => {
    server.close();
    server.closeAllConnections();
  };
  return { url: `http://127.0.0.1:${server.address().port}/`, close };
}

function startBrowser(profile, wss) {
  const flags = [
    "--headless",
    "--no-sandbox", // root in a container has no namespaces to build one; the only page is ours
    "--disable-gpu",
    "--disable-dev-shm-usage", // /dev/shm of a container is 64 MB
    "--remote-debugging-pipe",
    `--user-data-dir=${profile}`,
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--mute-audio",
    "--ignore-certificate-errors", // the switch under test has a self-signed certificate
    // A switch bound to the loopback may accept no other ICE candidate (apply-candidate-acl), and a machine without a
    // network has no other. Addresses are not hidden behind mDNS names once the page may use the microphone.
    "--allow-loopback-in-peer-connection",
    // Nobody is asked for anything but the page and the switch.
    `--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE ${new URL(wss).hostname}`,
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "about:blank",
  ];
  return spawn(chromium, flags, {
    // Its own process group, so that helpers can be ended with it; its own home, so that nothing is left in ours.
    detached: true,
    env: { PATH: process.env.PATH, HOME: profile, TMPDIR: profile },
    stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"],
  });
}

/** The DevTools protocol: returns send(method, params, sessionId) and calls onEvent with what was not asked for. */
function devTools(child, onEvent) {
  const [, , , toBrowser, fromBrowser] = child.stdio;
  const waiting = new Map();
  let lastId = 0;
  let rest = "";
  fromBrowser.setEncoding("utf8").on("data", (chunk) => {
    const messages = (rest + chunk).split("\0");
    rest = messages.pop();
    for (const { id, result, error, ...event } of messages.map((text) => JSON.parse(text))) {
      if (id === undefined) onEvent(event);
      else if (error) waiting.get(id).reject(new Error(`DevTools: ${error.message}`));
      else waiting.get(id).resolve(result);
      waiting.delete(id);
    }
  });
  // A closed pipe means that the browser is gone, which its "exit" reports with more to say.
  for (const pipe of [toBrowser, fromBrowser]) pipe.on("error", () => {});
  return (method, params = {}, sessionId = undefined) =>
    new Promise((resolve, reject) => {
      const id = ++lastId;
      waiting.set(id, { resolve, reject });
      toBrowser.write(JSON.stringify({ id, method, params, sessionId }) + "\0");
    });
}

/** Opens the page and returns evaluate(expression), to run something there, and failed, rejected when it breaks. */
async function openPage(child, url) {
  let loaded;
  const ready = new Promise((resolve) => {
    loaded = resolve;
  });
  let fail;
  const failed = new Promise((_, reject) => {
    fail = (message) => reject(new Error(message));
  });
  failed.catch(() => {}); // looked at only once the page is being loaded
  const send = devTools(child, ({ method, params }) => {
    switch (method) {
      case "Page.loadEventFired": // comes after the modules of the page have run
        return loaded();
      case "Runtime.bindingCalled":
        return void process.stdout.write(`${params.payload}\n`);
      case "Runtime.consoleAPICalled":
        return void process.stderr.write(`${params.args.map((a) => a.value ?? a.description ?? "").join(" ")}\n`);
      case "Runtime.exceptionThrown":
        return fail(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
      case "Inspector.targetCrashed":
        return fail("the page crashed");
    }
  });
  const { targetId } = await send("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
  for (const domain of ["Page", "Runtime", "Inspector"]) await send(`${domain}.enable`, {}, sessionId);
  await send("Runtime.addBinding", { name: "say" }, sessionId);
  await send("Page.navigate", { url }, sessionId);
  await Promise.race([ready, failed]);
  const evaluate = async (expression) => {
    const question = { expression, awaitPromise: true, returnByValue: true };
    const { result, exceptionDetails } = await send("Runtime.evaluate", question, sessionId);
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  };
  return { evaluate, failed };
}

/** Kills the browser and its helpers, and waits until the last of them is gone. */
async function endBrowser(child) {
  for (let tries = 0; child.pid && tries < 100; tries++) {
    try {
      process.kill(-child.pid, "SIGKILL");
    } catch {
      return; // nobody is left in the group
    }
    await delay(20);
  }
}

/**
 * Runs one phone and returns its report. When stop aborts, the phone hangs up and unregisters first, within STOP_MS.
 * The browser, its profile and the server are gone when this settles.
 */
async function phone(options, stop) {
  const profile = await mkdtemp(join(tmpdir(), "webrtc-phone-"));
  const server = await servePage();
  const child = startBrowser(profile, options.wss);
  let noise = "";
  child.stderr.setEncoding("utf8").on("data", (text) => {
    noise = (noise + text).slice(-2000);
  });
  const gone = new Promise((_, reject) => {
    child.once("error", reject);
    child.once("exit", (code, signal) => reject(new Error(`${chromium} ended (${signal ?? code}): ${noise.trim()}`)));
  });

  let page;
  const work = async () => {
    page = await openPage(child, server.url);
    return Promise.race([page.evaluate(`phone(${JSON.stringify(options)})`), page.failed]);
  };
  const cut = new Promise((_, reject) => {
    stop.addEventListener("abort", async () => {
      const why = stop.reason.message;
      page?.evaluate(`stopPhone(${JSON.stringify(why)})`).catch(() => {});
      if (page) await delay(STOP_MS, undefined, { ref: false });
      reject(new Error(why));
    });
  });
  try {
    stop.throwIfAborted();
    return await Promise.race([work(), gone, cut]);
  } finally {
    server.close();
    await endBrowser(child);
    await gone.catch(() => {});
    await rm(profile, { recursive: true, force: true, maxRetries: 10 });
  }
}

async function main() {
  let options;
  try {
    options = readOptions(process.argv.slice(2));
  } catch (error) {
    console.error(`phone.mjs: ${error.message} (see test/webrtc/README.md)`);
    return USAGE;
  }
  const missing = [chromium, sipjs].find((path) => !existsSync(path));
  if (missing) {
    console.error(`phone.mjs: ${missing} is missing: run test/webrtc/setup (Debian: apt-get install chromium; npm ci)`);
    return NOT_INSTALLED;
  }
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.on(signal, () => stop.abort(new Error(`stopped by ${signal}`)));
  }
  const timer = setTimeout(() => stop.abort(new Error(`not done within ${options.timeout} s`)), options.timeout * 1000);
  const report = await phone(options, stop.signal).catch((error) => ({ registered: false, error: error.message }));
  clearTimeout(timer);
  console.log(JSON.stringify(report));
  return report.error ? FAILED : 0;
}

process.exitCode = await main();

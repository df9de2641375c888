// The half of the phone that runs in the browser: SIP.js on top, Chromium's own WebRTC below. phone.mjs calls
// window.phone and prints what it returns.

import { Inviter, Registerer, RegistererState, SessionState, UserAgent } from "/sip.js/index.js";

// Each step has its own bound, so that a failure names the step and not only "it took too long".
const REGISTER_MS = 15_000;
const ANSWER_MS = 20_000;
const MEDIA_MS = 15_000;
const HANGUP_MS = 4_000;

// How often the statistics are read: they vanish with the peer connection when the far side hangs up first.
const SAMPLE_MS = 200;

/** Settles as promise does, or rejects when that takes longer than ms. */
function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ${ms / 1000} s`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Resolves with the state once session is in one of the wanted ones. */
function reaches(session, ...wanted) {
  return new Promise((resolve) => {
    const check = (state) => wanted.includes(state) && resolve(state);
    session.stateChange.addListener(check);
    check(session.state);
  });
}

/** Status of a final answer. Without Via nobody sent it: SIP.js makes up a 408 or 503 when there is no answer. */
function statusOf(response) {
  const { message } = response;
  if (!message.hasHeader("Via")) {
    throw new Error(`the server did not answer (SIP.js calls it ${message.statusCode})`);
  }
  return message.statusCode;
}

/** Sends a request by start(delegate) and resolves with the status of its final answer. */
function finalStatus(start) {
  return new Promise((resolve, reject) => {
    const settle = (response) => {
      try {
        resolve(statusOf(response));
      } catch (error) {
        reject(error);
      }
    };
    start({ onAccept: settle, onReject: settle }).catch(reject);
  });
}

/** Rejects when SIP.js throws away a 200: it wants its own Contact back in it and says so in its log only. */
function unusable(registerer) {
  return new Promise((_, reject) => {
    registerer.stateChange.addListener((state) => {
      if (state !== RegistererState.Unregistered) return;
      // A refusal passes here as well, and has been reported by its status when this timer fires.
      setTimeout(() => reject(new Error("SIP.js does not find its own Contact in the 200")));
    });
  });
}

/** What Chromium says about the call so far. */
async function measure(connection) {
  const stats = await connection.getStats();
  const find = (type) => [...stats.values()].find((s) => s.type === type && (s.kind ?? "audio") === "audio");
  const inbound = find("inbound-rtp");
  const outbound = find("outbound-rtp");
  const transport = find("transport");
  const codec = stats.get(inbound?.codecId ?? outbound?.codecId)?.mimeType.replace("audio/", "");
  // Mean level over the whole call (0 to 1): the fake microphone beeps once a second, so a momentary level is luck.
  const { totalAudioEnergy = 0, totalSamplesDuration = 0 } = inbound ?? {};
  const level = totalSamplesDuration > 0 ? Math.sqrt(totalAudioEnergy / totalSamplesDuration) : 0;
  return {
    dtls: transport?.dtlsState,
    srtp: transport?.srtpCipher,
    codec,
    packetsSent: outbound?.packetsSent ?? 0,
    packetsReceived: inbound?.packetsReceived ?? 0,
    bytesReceived: inbound?.bytesReceived ?? 0,
    audioLevel: Number(level.toFixed(4)),
  };
}

/** Keeps an established call for the given seconds, or until the far side ends it; fills in report. */
async function hold(session, seconds, report) {
  const { peerConnection, remoteMediaStream } = session.sessionDescriptionHandler;
  document.querySelector("audio").srcObject = remoteMediaStream;

  report.endedBy = "browser";
  session.delegate = {
    onBye: (bye) => {
      report.endedBy = "far side";
      return bye.accept();
    },
  };
  const over = reaches(session, SessionState.Terminated);
  const connected = new Promise((resolve, reject) => {
    const check = () => {
      const state = peerConnection.connectionState;
      if (state === "connected") resolve();
      if (state === "failed") reject(new Error("ICE or DTLS failed"));
    };
    peerConnection.addEventListener("connectionstatechange", check);
    check();
  });
  const ended = over.then(() => {
    throw new Error("the far side ended the call before media was connected");
  });
  await within(MEDIA_MS, "ICE and DTLS", Promise.race([connected, ended]));

  const until = performance.now() + seconds * 1000;
  for (;;) {
    const sample = await measure(peerConnection);
    if (session.state === SessionState.Terminated) break;
    Object.assign(report, sample);
    const left = until - performance.now();
    if (left <= 0) break;
    await Promise.race([over, new Promise((resolve) => setTimeout(resolve, Math.min(SAMPLE_MS, left)))]);
  }

  if (report.dtls !== "connected" || !report.srtp) throw new Error("media is not under DTLS-SRTP");
  if (report.packetsSent === 0) throw new Error("no packet was sent");
  if (report.packetsReceived === 0) throw new Error("no packet was received");
}

/** Ends an established call, and rejects when the switch does not take that. Stopping the user agent ends any other. */
async function hangUp(session) {
  if (session?.state !== SessionState.Established) return;
  const bye = finalStatus((requestDelegate) => session.bye({ requestDelegate }));
  const status = await within(HANGUP_MS, "BYE", bye);
  // 481: both sides hung up at the same moment.
  if (status >= 300 && status !== 481) throw new Error(`BYE was refused with ${status}`);
}

/** Calls options.call; line.session is set as soon as there is something to hang up. */
async function placeCall(options, report, line) {
  report.called = options.call;
  report.answered = false;
  const session = new Inviter(line.userAgent, UserAgent.makeURI(`sip:${options.call}@${options.realm}`));
  line.session = session;
  const answer = finalStatus((requestDelegate) => session.invite({ requestDelegate }));
  const status = await within(ANSWER_MS, "INVITE", answer);
  if (status >= 300) {
    report.status = status;
    throw new Error(`the call was refused with ${status}`);
  }
  await within(MEDIA_MS, "use of the answer", reaches(session, SessionState.Established, SessionState.Terminated));
  if (session.state === SessionState.Terminated) throw new Error("the answer could not be used");
  report.answered = true;
  await hold(session, options.seconds, report);
  if (report.endedBy !== "browser") throw new Error("the far side ended the call too early");
}

/** Takes the call that incoming resolves with. How long it may be in coming is bounded by --timeout alone. */
async function takeCall(incoming, options, report, line) {
  report.answered = false;
  const session = await incoming;
  line.session = session;
  report.caller = session.remoteIdentity.uri.user;
  await within(ANSWER_MS, "answering", session.accept());
  await within(ANSWER_MS, "ACK", reaches(session, SessionState.Established, SessionState.Terminated));
  if (session.state === SessionState.Terminated) throw new Error("the caller gave up");
  report.answered = true;
  await hold(session, options.seconds, report);
}

async function run(options, report, line) {
  let deliver;
  const incoming = new Promise((resolve) => {
    deliver = resolve;
  });
  let offered = 0;
  line.userAgent = new UserAgent({
    uri: UserAgent.makeURI(`sip:${options.user}@${options.realm}`),
    authorizationUsername: options.user,
    authorizationPassword: options.password,
    transportOptions: { server: options.wss, connectionTimeout: REGISTER_MS / 1000 },
    sessionDescriptionHandlerFactoryOptions: {
      // SIP.js would ask a public STUN server by default; a test asks nobody but the switch.
      peerConnectionConfiguration: { iceServers: [] },
    },
    delegate: {
      onInvite: (invitation) => {
        // One line, one call: a second one is told so.
        if (options.wait && offered++ === 0) deliver(invitation);
        else invitation.reject({ statusCode: 486 });
      },
    },
    logConfiguration: false,
    logLevel: options.verbose ? "debug" : "error",
  });
  await within(REGISTER_MS, options.wss, line.userAgent.start());

  const registerer = new Registerer(line.userAgent);
  const status = await Promise.race([
    within(REGISTER_MS, "REGISTER", finalStatus((requestDelegate) => registerer.register({ requestDelegate }))),
    unusable(registerer),
  ]);
  report.registered = status < 300;
  if (!report.registered) {
    report.status = status;
    if (options.expectRegisterFailure) return;
    throw new Error(`the registration was refused with ${status}`);
  }
  if (options.expectRegisterFailure) throw new Error("the registration was accepted");

  if (options.wait) {
    window.say(JSON.stringify({ registered: true, waiting: true }));
    await takeCall(incoming, options, report, line);
  } else if (options.call) {
    await placeCall(options, report, line);
  }
}

const stopped = new Promise((_, reject) => {
  /** Ends phone early: it hangs up, unregisters and reports why as its error. */
  window.stopPhone = (why) => reject(new Error(why));
});

/** Does what options ask for. The result has a field "error" when that did not work; it never rejects. */
window.phone = async (options) => {
  const report = { registered: false };
  const line = {};
  const fail = (error) => {
    report.error ??= error.message || String(error);
  };
  await Promise.race([run(options, report, line), stopped]).catch(fail);
  await hangUp(line.session).catch(fail);
  // Unregisters as well, so that a later call to this user does not ring a browser that is gone.
  if (line.userAgent) await within(HANGUP_MS, "unregistering", line.userAgent.stop()).catch(fail);
  return report;
};

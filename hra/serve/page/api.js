// The server's two routes -> speakers, and transcripts with their receipts.

const PATIENCE = 3; // times that a server which asks to be tried again is asked
const LONGEST_WAIT = 20; // seconds

/** Why there is no answer, as a sentence; `said` is the server's own. */
export class Failure extends Error {
  constructor(sentence, { said = "", wantsKey = false } = {}) {
    super(sentence);
    this.said = said;
    this.wantsKey = wantsKey;
  }
}

/**
 * @returns {Promise<{name: string, backbone: ?string, speakers: Map<string, string>}>}
 *   The backbone's name, its id where this key may use it, and ids by speaker.
 */
export async function catalog(key) {
  const { data } = await (await ask("v1/models", { key })).json();
  const found = { name: "", backbone: null, speakers: new Map() };
  for (const { id } of data) {
    const colon = id.indexOf(":");
    if (colon < 0) found.backbone = id;
    else found.speakers.set(id.slice(colon + 1), id);
    found.name ||= colon < 0 ? id : id.slice(0, colon);
  }
  return found;
}

/**
 * @param {string} model "BACKBONE" or "BACKBONE:speaker".
 * @param {Blob} sound
 * @returns {Promise<{text: string, receipt: ?object, seconds: number}>} seconds: until
 *   the answer was here.
 */
export async function transcribe(model, sound, name, { key, signal, waiting }) {
  const body = new FormData();
  body.set("model", model);
  body.set("response_format", "json");
  body.set("file", sound, name);
  for (let left = PATIENCE; ; left--) {
    const began = performance.now();
    try {
      const response = await ask("v1/audio/transcriptions", { key, signal, body });
      const { text, hra = null } = await response.json();
      return { text, receipt: hra, seconds: (performance.now() - began) / 1000 };
    } catch (failure) {
      if (!failure.wait || left === 0) throw failure;
      waiting(failure.wait);
      await pause(failure.wait, signal);
    }
  }
}

async function ask(route, { key, signal, body }) {
  let response;
  try {
    response = await fetch(route, {
      method: body ? "POST" : "GET",
      headers: key ? { Authorization: `Bearer ${key}` } : {},
      body,
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server doesn't answer. Is it running, and is the network there?");
  }
  if (response.ok) return response;
  const problem = await response.json().then(({ error }) => error, () => null);
  const failure = new Failure(sentence(response.status, Boolean(key)), {
    said: problem?.message ?? "",
    wantsKey: response.status === 401,
  });
  const wait = Number(response.headers.get("Retry-After"));
  if ([429, 503].includes(response.status) && wait > 0 && wait <= LONGEST_WAIT) {
    failure.wait = wait;
  }
  throw failure;
}

function sentence(status, keyed) {
  switch (status) {
    case 400:
    case 415:
    case 422:
      return "The server can't use this recording.";
    case 401:
      return keyed ? "The server doesn't know this API key." : "The server asks for an API key.";
    case 403:
      return "The server doesn't allow this.";
    case 404:
      return "The server has no such speaker, or this API key may not use it.";
    case 409:
      return "This speaker's Submodel can't be used with the backbone.";
    case 408:
      return "Sending the recording took too long.";
    case 413:
      return "The recording is too long or too large for this server.";
    case 429:
      return "That were too many requests for now; try again in a while.";
    case 503:
      return "The server can't answer now; try again in a while.";
    case 504:
      return "The server took too long to answer; try again in a while.";
    default:
      return `The server failed (status ${status}).`;
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, 1000 * seconds);
    signal.addEventListener("abort", stop, { once: true });
  });
}

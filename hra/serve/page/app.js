// The page: who speaks, a recording, and what the server hears in it.

import { catalog } from "./api.js";
import { MOST_SECONDS, NoSound, Recorder, obstacle } from "./recorder.js";
import { Result } from "./results.js";
import { converted } from "./sound.js";
import { Speakers } from "./speakers.js";

const SENT_AS_THEY_ARE = /\.(wav|flac|ogg|oga|opus|mp3)$/i;
const $ = (id) => document.getElementById(id);

let key = sessionStorage.getItem("key") ?? "";
let asked = -Infinity; // when the server was asked for its speakers
let known = { name: "", backbone: null, speakers: new Map() };
const waiting = [];
let busy = false;

const FRESH = 10_000; // milliseconds

const speakers = new Speakers(() => trouble(""));

function tell(text) {
  $("told").textContent = text;
}

function trouble(text) {
  $("trouble").hidden = !text;
  $("trouble").textContent = text;
}

async function open() {
  asked = performance.now();
  try {
    known = await catalog(key);
    const count = known.speakers.size;
    $("server").textContent = `${known.name || "no backbone"} · ${count.toLocaleString("en")} ${count === 1 ? "speaker" : "speakers"}`;
    $("server").dataset.state = "there";
    $("ask-again").hidden = true;
    speakers.set([...known.speakers.keys()], key);
  } catch (failure) {
    $("server").textContent = failure.message;
    $("server").dataset.state = "gone";
    $("ask-again").hidden = failure.wantsKey;
    if (failure.wantsKey) showKey();
    return false;
  }
  return true;
}

function showKey() {
  $("key-field").hidden = false;
  $("key-show").setAttribute("aria-expanded", "true");
}

async function useKey() {
  key = $("key").value.trim();
  sessionStorage.setItem("key", key);
  if (await open()) $("speaker").focus();
  else $("key").select();
}

/** Who and what is chosen; null, and said so, where that can't be asked for. */
function choice() {
  const speaker = speakers.value;
  const backbone = known.backbone;
  if (speaker === undefined) {
    trouble("Choose a speaker from the list, or empty the field for the backbone alone.");
  } else if (speaker !== null || backbone) {
    trouble("");
    return { speaker, models: { backbone, submodel: known.speakers.get(speaker) ?? null } };
  } else if (known.name) {
    trouble("Choose a speaker: this API key may not use the backbone alone.");
  } else {
    trouble("The server has not said which models it has. Try again when it answers.");
  }
  $("speaker").focus();
  return null;
}

/**
 * Puts a recording in the queue.
 * @param {?object} chosen
 * @param {?Element} after The card that the new one stands below.
 */
function hear(sound, title, { file = title, chosen = choice(), after = null } = {}) {
  if (!chosen) return null;
  const result = new Result({ sound, title, file, key, ...chosen });
  result.again.addEventListener("click", () => hear(sound, title, { file }));
  result.removed = () => { $("empty").hidden = $("results").childElementCount > 0; };
  if (after) after.after(result.card);
  else $("results").prepend(result.card);
  $("empty").hidden = true;
  if (!after) result.card.scrollIntoView({ block: "nearest" });
  waiting.push(result);
  work();
  return result.card;
}

/** One recording after the other, so that many files leave room for others. */
async function work() {
  if (busy) return;
  busy = true;
  for (let result; (result = waiting.shift());) {
    tell(`${result.asked.title} is being transcribed.`);
    const said = await result.run();
    if (said) tell(`${result.asked.title}: ${said}.`);
    if (result.failure?.wantsKey) showKey();
  }
  busy = false;
}

async function take(files) {
  let after = null;
  for (const file of files) {
    let sound = file;
    if (!SENT_AS_THEY_ARE.test(file.name)) {
      try {
        sound = await converted(await file.arrayBuffer());
      } catch {
        trouble(`${file.name} is no recording that this browser can read.`);
        continue;
      }
    }
    const name = sound === file ? file.name : `${file.name}.wav`;
    after = hear(sound, file.name, { file: name, after });
    if (!after) break;
  }
}

let recorder = null;
let beforehand = null; // what was chosen when the recording began
let takes = 0;

async function toggle() {
  if (recorder) {
    await finish();
    return;
  }
  beforehand = choice();
  if (!beforehand) return;
  $("record").disabled = true;
  const peaks = [];
  recorder = new Recorder((peak, seconds) => {
    peaks.push(peak);
    draw(peaks);
    $("clock").textContent = clock(seconds);
    if (seconds >= MOST_SECONDS) finish();
  });
  try {
    await recorder.start();
    recorder.ended = finish;
    $("clock").textContent = clock(0);
    listening(true);
    tell("Recording.");
  } catch (error) {
    recorder = null;
    trouble(error instanceof NoSound ? error.message : `Recording failed: ${error.message}`);
  }
  $("record").disabled = false;
  $("record").focus();
}

async function finish() {
  if (!recorder) return;
  const ended = recorder;
  recorder = null;
  listening(false);
  try {
    const sound = await ended.stop();
    takes++;
    // What is recorded isn't lost because the field has no speaker's name just now.
    const chosen = choice() ?? beforehand;
    hear(sound, `Recording ${takes}`, { file: `recording-${takes}.wav`, chosen });
  } catch (error) {
    trouble(error instanceof NoSound ? error.message : `Recording failed: ${error.message}`);
  }
}

async function discard() {
  const ended = recorder;
  recorder = null;
  listening(false);
  $("record").focus();
  tell("The recording was discarded.");
  await ended?.release();
}

function listening(on) {
  document.body.classList.toggle("listening", on);
  $("take").hidden = !on;
  $("record-label").textContent = on ? "Stop and transcribe" : "Record";
}

function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** The latest peaks as bars, from right to left. */
function draw(peaks) {
  const canvas = $("level");
  const scale = window.devicePixelRatio;
  const [wide, high] = [canvas.clientWidth * scale, canvas.clientHeight * scale];
  if (canvas.width !== wide) [canvas.width, canvas.height] = [wide, high];
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, wide, high);
  pen.fillStyle = getComputedStyle(canvas).color;
  const step = 5 * scale;
  peaks.slice(-Math.ceil(wide / step)).reverse().forEach((peak, place) => {
    // Decibels, as ears have it: from -50 to 0.
    const loud = Math.max(0.06, 1 + Math.log10(Math.max(peak, 1e-5)) / 2.5);
    pen.fillRect(wide - (place + 1) * step, (high - loud * high) / 2, 3 * scale, loud * high);
  });
}

$("controls").addEventListener("submit", (event) => event.preventDefault());
$("ask-again").addEventListener("click", open);
$("speaker").addEventListener("focus", () => {
  if (performance.now() - asked > FRESH) open();
});
$("record").addEventListener("click", toggle);
$("discard").addEventListener("click", discard);
$("key-use").addEventListener("click", useKey);
$("key").addEventListener("keydown", (event) => {
  if (event.key === "Enter") useKey();
});
$("key-show").addEventListener("click", () => {
  showKey();
  $("key").focus();
});
$("files").addEventListener("change", ({ target }) => {
  take([...target.files]);
  target.value = "";
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    const leaves = kind === "drop" || (kind === "dragleave" && !event.relatedTarget);
    document.body.classList.toggle("dropping", !leaves);
    if (kind === "drop") take([...event.dataTransfer.files]);
  });
}
const hindered = obstacle();
$("record").disabled = Boolean(hindered);
$("record-note").textContent = hindered;
$("key").value = key;
if (key) showKey();
open();

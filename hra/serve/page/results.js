// A recording -> a card of what was heard in it, without and with a Submodel.

import { transcribe } from "./api.js";
import { compare } from "./words.js";

const REASONS = {
  unknown: "The store has no Submodel of this speaker.",
  "not better": "On its dev recordings the Submodel was no better.",
};

let made = 0;

export class Result {
  /**
   * @param {{sound: Blob, title: string, file: string, models: {backbone: ?string,
   *   submodel: ?string}, speaker: ?string, key: string}} asked
   */
  constructor(asked) {
    this.asked = asked;
    this.stopping = new AbortController();
    const card = document.getElementById("result").content.cloneNode(true).firstElementChild;
    this.card = card;
    const title = card.querySelector("h2");
    title.textContent = asked.title;
    title.id = `title-${++made}`;
    card.setAttribute("aria-labelledby", title.id);
    this.url = URL.createObjectURL(asked.sound);
    const player = card.querySelector("audio");
    player.src = this.url;
    player.setAttribute("aria-label", asked.title);
    player.addEventListener("error", () => player.remove());
    this.summary = card.querySelector(".summary");
    this.again = card.querySelector(".again");
    this.again.setAttribute("aria-label", `Transcribe ${asked.title} again, with the speaker who is chosen now`);
    card.querySelector(".remove").setAttribute("aria-label", `Remove ${asked.title}`);
    card.querySelector(".remove").addEventListener("click", () => this.remove());
    const pair = card.querySelector(".pair");
    this.sides = {};
    for (const kind of ["backbone", "submodel"]) {
      if (asked.models[kind]) {
        this.sides[kind] = side(kind, asked.speaker);
        pair.append(this.sides[kind].section);
      }
    }
    this.summary.textContent = "waits";
  }

  remove() {
    this.stopping.abort();
    URL.revokeObjectURL(this.url);
    const next = this.card.nextElementSibling ?? this.card.previousElementSibling;
    this.card.remove();
    (next?.querySelector(".remove") ?? document.getElementById("record")).focus();
    this.removed?.();
  }

  /** Asks the server for both sides. @returns {Promise<string>} What came of it. */
  async run() {
    if (this.stopping.signal.aborted) return "";
    this.summary.textContent = "is being transcribed …";
    const answers = await Promise.all(
      Object.entries(this.sides).map(([kind, own]) => this.fill(kind, own)),
    );
    if (this.stopping.signal.aborted) return "";
    const said = this.conclude(answers);
    this.summary.textContent = said;
    return said;
  }

  async fill(kind, own) {
    const { models, sound, file, key } = this.asked;
    own.section.setAttribute("aria-busy", "true");
    try {
      const answer = await transcribe(models[kind], sound, file, {
        key,
        signal: this.stopping.signal,
        waiting: (wait) => {
          own.receipt.textContent = `The server is busy; trying again in ${wait} s …`;
        },
      });
      own.show(answer);
      return answer;
    } catch (failure) {
      if (failure.name !== "AbortError") own.fail(failure);
      this.failure = failure;
      return null;
    } finally {
      own.section.removeAttribute("aria-busy");
    }
  }

  conclude(answers) {
    if (answers.includes(null)) return answers.some(Boolean) ? "half of it failed" : "failed";
    if (answers.length < 2) return "transcribed";
    if (answers[1].receipt?.applied === "backbone") return "the backbone answered twice";
    const { left, right, edits } = compare(answers[0].text, answers[1].text);
    this.sides.backbone.mark(left, "without");
    this.sides.submodel.mark(right, "with");
    if (edits === null) return "too long to be compared word by word";
    if (edits === 0) return "both heard the same";
    return edits === 1 ? "1 word differs" : `${edits} words differ`;
  }
}

function side(kind, speaker) {
  const section = document.getElementById("side").content.cloneNode(true).firstElementChild;
  const [text, receipt, copy] = [".text", ".receipt", ".copy"].map((own) => section.querySelector(own));
  const title = section.querySelector("h3");
  title.textContent = kind === "backbone" ? "Backbone alone" : `With ${speaker}'s Submodel`;
  section.classList.add(kind);
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text.textContent);
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy text"; }, 2000);
  });
  return {
    section,
    receipt,
    show(answer) {
      text.textContent = answer.text;
      if (!answer.text) {
        text.textContent = "nothing was heard";
        text.classList.add("soft");
      }
      receipt.textContent = [told(answer.receipt), times(answer)].filter(Boolean).join("\n");
      if (kind === "submodel" && answer.receipt?.applied === "backbone") {
        title.textContent = `Backbone, in place of ${speaker}'s Submodel`;
        section.classList.add("instead");
      }
      copy.hidden = !navigator.clipboard || !answer.text;
      copy.setAttribute("aria-label", `Copy text: ${title.textContent}`);
    },
    fail(failure) {
      section.classList.add("failed");
      text.textContent = failure.message;
      receipt.textContent = failure.said;
    },
    mark(words, form) {
      if (!words.length) return;
      text.replaceChildren(...runs(words).flatMap(({ said, differs }, place) => {
        const shown = differs ? document.createElement("mark") : document.createTextNode(said);
        if (differs) {
          shown.className = form;
          shown.textContent = said;
        }
        return place ? [" ", shown] : [shown];
      }));
    },
  };
}

/** Neighbouring words of one kind as one. */
function runs(words) {
  const found = [];
  for (const { text, differs } of words) {
    const last = found.at(-1);
    if (last?.differs === differs) last.said += ` ${text}`;
    else found.push({ said: text, differs });
  }
  return found;
}

function told(receipt) {
  if (!receipt) return "";
  if (receipt.applied === "backbone") return REASONS[receipt.reason] ?? "";
  const print = receipt.fingerprint ? `, ${receipt.fingerprint.slice(0, 8)}` : "";
  return `Version ${receipt.version}${print}.`;
}

function times({ seconds, receipt }) {
  const spent = receipt?.seconds ?? {};
  const parts = ["queued", "loading", "computing"]
    .filter((part) => typeof spent[part] === "number" && spent[part] >= 0.0005)
    .map((part) => `${part} ${brief(spent[part])}`);
  return `Answered in ${brief(seconds)}${parts.length ? `: ${parts.join(", ")}` : ""}.`;
}

function brief(seconds) {
  return seconds < 1 ? `${Math.round(1000 * seconds)}\u00a0ms` : `${seconds.toFixed(1)}\u00a0s`;
}

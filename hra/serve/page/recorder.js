// The microphone -> a WAV file, and meanwhile its level and how long it has been on.

import { loudest, wavOf } from "./sound.js";

export const MOST_SECONDS = 300;
const SILENT = 1e-3;

/** Why nothing was recorded, as a sentence. */
export class NoSound extends Error {}

/** Why recording can't begin here; empty where it can. */
export function obstacle() {
  if (!window.isSecureContext || !navigator.mediaDevices) {
    return "Browsers hand out the microphone over https or on localhost only; " +
      "recordings can be chosen as files.";
  }
  return window.AudioWorkletNode ? "" : "This browser is too old to record.";
}

export class Recorder {
  /** @param {(peak: number, seconds: number) => void} heard Called for every block. */
  constructor(heard) {
    this.heard = heard;
    this.blocks = [];
    this.samples = 0;
    this.ended = null; // called when the microphone is taken away
  }

  async start() {
    try {
      // Suppression of noise is made for typical speech, and cuts into other speech.
      this.stream = await navigator.mediaDevices.getUserMedia({
        audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false },
      });
    } catch (error) {
      throw new NoSound(refusal(error));
    }
    this.context = new AudioContext();
    try {
      await this.context.audioWorklet.addModule("capture.js");
    } catch (error) {
      await this.release();
      throw error;
    }
    this.node = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 0 });
    this.node.port.onmessage = ({ data }) => this.take(data);
    this.context.createMediaStreamSource(this.stream).connect(this.node);
    this.stream.getAudioTracks()[0].addEventListener("ended", () => this.ended?.());
    await this.context.resume();
  }

  take(block) {
    if (block === null) {
      this.whole();
      return;
    }
    this.blocks.push(block);
    this.samples += block.length;
    this.heard(loudest([block]), this.samples / this.context.sampleRate);
  }

  /** Ends the recording. @returns {Promise<Blob>} */
  async stop() {
    const rest = new Promise((resolve) => { this.whole = resolve; });
    this.node.port.postMessage("stop");
    await Promise.race([rest, new Promise((resolve) => setTimeout(resolve, 500))]);
    const rate = this.context.sampleRate;
    await this.release();
    if (loudest(this.blocks) < SILENT) {
      throw new NoSound("The microphone gave nothing but silence. Is it switched off?");
    }
    return wavOf(this.blocks, rate);
  }

  async release() {
    this.stream.getTracks().forEach((track) => track.stop());
    await this.context?.close();
  }
}

function refusal(error) {
  switch (error.name) {
    case "NotAllowedError":
      return "The browser was not allowed to use the microphone. Allow it beside the " +
        "page's address, then try again.";
    case "NotFoundError":
      return "No microphone was found.";
    case "NotReadableError":
      return "The microphone can't be used; another program may hold it.";
    default:
      return `The microphone can't be used: ${error.message}`;
  }
}

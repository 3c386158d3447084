// Runs beside the audio: the microphone's samples -> blocks of them for the page.

const BLOCK = 2048;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(BLOCK);
    this.filled = 0;
    this.port.onmessage = () => { // the page has stopped: hand over the rest
      this.hand();
      this.port.postMessage(null);
      this.done = true;
    };
  }

  hand() {
    this.port.postMessage(this.block.slice(0, this.filled));
    this.filled = 0;
  }

  process([channels]) {
    if (this.done) return false;
    const first = channels[0];
    if (!first) return true;
    const share = 1 / channels.length;
    for (let i = 0; i < first.length; i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      this.block[this.filled++] = sum * share;
      if (this.filled === BLOCK) this.hand();
    }
    return true;
  }
}

registerProcessor("capture", Capture);

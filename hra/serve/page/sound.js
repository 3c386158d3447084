// Samples -> WAV files of 16 kHz, mono, 16 bits: what recognisers hear.

const RATE = 16000;
const HEAD = 44;

/** Samples at any rate -> a WAV file at 16 kHz. */
export async function wavOf(blocks, rate) {
  return converted(await write(blocks, rate).arrayBuffer());
}

/** What the browser can decode -> a WAV file at 16 kHz. */
export async function converted(bytes) {
  // decodeAudioData resamples to its context's rate, and filters for it.
  const sound = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(bytes);
  const mono = new Float32Array(sound.length);
  for (let i = 0; i < sound.numberOfChannels; i++) {
    const channel = sound.getChannelData(i);
    for (let s = 0; s < mono.length; s++) mono[s] += channel[s] / sound.numberOfChannels;
  }
  return write([mono], RATE);
}

export function loudest(blocks) {
  let peak = 0;
  for (const block of blocks) for (const sample of block) peak = Math.max(peak, Math.abs(sample));
  return peak;
}

function write(blocks, rate) {
  const samples = blocks.reduce((sum, block) => sum + block.length, 0);
  const view = new DataView(new ArrayBuffer(HEAD + 2 * samples));
  const name = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  name(0, "RIFF");
  view.setUint32(4, HEAD - 8 + 2 * samples, true);
  name(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  name(36, "data");
  view.setUint32(40, 2 * samples, true);
  let at = HEAD;
  for (const block of blocks) {
    for (const sample of block) {
      view.setInt16(at, Math.round(Math.max(-1, Math.min(1, sample)) * 32767), true);
      at += 2;
    }
  }
  return new Blob([view], { type: "audio/wav" });
}

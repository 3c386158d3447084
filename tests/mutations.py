"""Recordings in every format that speech comes in, and what happens to bytes."""

import pathlib

import numpy as np
import soundfile

_FORMATS = {
  "wav": (16_000, 1, {"format": "WAV"}),
  "wav24": (8_000, 2, {"format": "WAV", "subtype": "PCM_24"}),
  "float": (16_000, 1, {"format": "WAV", "subtype": "FLOAT"}),
  "ulaw": (8_000, 1, {"format": "WAV", "subtype": "ULAW"}),
  "ima": (16_000, 1, {"format": "WAV", "subtype": "IMA_ADPCM"}),
  "ms": (16_000, 2, {"format": "WAV", "subtype": "MS_ADPCM"}),
  "gsm": (8_000, 1, {"format": "WAV", "subtype": "GSM610"}),
  "flac": (16_000, 1, {"format": "FLAC"}),
  "flac24": (44_100, 2, {"format": "FLAC", "subtype": "PCM_24"}),
  "vorbis": (16_000, 1, {"format": "OGG"}),
  "vorbis2": (44_100, 2, {"format": "OGG"}),
  "opus": (16_000, 1, {"format": "OGG", "subtype": "OPUS"}),
  "mp3": (16_000, 1, {"format": "MP3"}),
  "mp32": (44_100, 2, {"format": "MP3"}),
  "aiff": (16_000, 1, {"format": "AIFF"}),
  "au": (16_000, 1, {"format": "AU"}),
  "g721": (8_000, 1, {"format": "AU", "subtype": "G721_32"}),
  "nist": (16_000, 1, {"format": "NIST"}),
  "caf": (16_000, 1, {"format": "CAF"}),
  "alac": (16_000, 1, {"format": "CAF", "subtype": "ALAC_16"}),
  "w64": (16_000, 1, {"format": "W64"}),
  "rf64": (16_000, 1, {"format": "RF64"}),
  "sds": (16_000, 1, {"format": "SDS", "subtype": "PCM_16"}),
}
_EDGES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 2**63, -1)


def files(folder: pathlib.Path) -> dict[str, bytes]:
  """Two fifths of a second, by the name of a format."""
  made = {}
  for name, (rate, channels, options) in _FORMATS.items():
    time_S = np.arange(round(0.4 * rate)) / rate
    noise_S = np.random.default_rng(0).standard_normal(len(time_S))
    wave_S = 0.3 * np.sin(2 * np.pi * 300 * time_S) + 0.05 * noise_S
    path = folder / name  # by name: some encoders write to no BytesIO
    soundfile.write(path, np.stack([wave_S] * channels, 1), rate, **options)
    made[name] = path.read_bytes()
  return made


def _overwrite(data: bytearray, rng: np.random.Generator) -> None:
  """A field of the header becomes an edge of its range."""
  width = int(rng.choice([1, 2, 4, 8]))
  place = int(rng.integers(min(200, len(data))))
  value = int(rng.choice(np.array(_EDGES, dtype=object))) % 256**width
  order = "little" if rng.integers(2) else "big"
  data[place : place + width] = value.to_bytes(width, order)


def mutate(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
  """One to three things that happen to files."""
  out = bytearray(data)
  for _ in range(rng.integers(1, 4)):
    if not out:
      break
    place, origin = (int(p) for p in rng.integers(len(out), size=2))
    run = slice(place, min(len(out), place + int(2 ** rng.uniform(0, 11))))
    length = run.stop - run.start
    other = others[rng.integers(len(others))]
    match rng.integers(10):
      case 0:
        for bit in rng.integers(8 * len(out), size=rng.integers(1, 9)):
          out[bit // 8] ^= 1 << int(bit % 8)
      case 1:
        out[run] = bytes(length)
      case 2:
        out[run] = b"\xff" * length
      case 3:
        out[place:place] = rng.bytes(length)
      case 4:
        del out[run]
      case 5:
        del out[place:]
      case 6:
        _overwrite(out, rng)
      case 7:
        moved = bytes(out[run])
        out[run] = out[origin : origin + length]
        out[origin : origin + length] = moved
      case 8:
        out += other
      case 9:
        out[place:] = other[int(rng.integers(len(other))) :]
  return bytes(out)

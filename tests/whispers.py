"""Small random Whisper models of transformers, in folders as it saves them."""

import functools
import json
import pathlib

import numpy as np
import originals
from originals import torch, transformers

from hra.backbone import store
from hra.backbone.foreign import checkpoint, convert

SECONDS, MELS = 1, 8
LONG = 8
"""Seconds that hold a sentence."""
FRAMES = 50 * SECONDS
TIMES = tuple(f"<|{step / 50:.2f}|>" for step in range(FRAMES + 1))
LANGUAGES = ("en", "de")
MARKS = (
  "<|endoftext|>",
  "<|startoftranscript|>",
  *(f"<|{language}|>" for language in LANGUAGES),
  "<|translate|>",
  "<|transcribe|>",
  "<|startofprev|>",
  "<|nospeech|>",
  "<|notimestamps|>",
)


def _pieces():
  """Every byte, and a few merges."""
  alphabet = sorted(
    originals.pytest.importorskip(
      "tokenizers"
    ).pre_tokenizers.ByteLevel.alphabet()
  )
  merges = [("\u0120", "a"), ("a", "b"), ("\u0120a", "b"), ("c", "d")]
  names = [*alphabet, *("".join(pair) for pair in merges)]
  return {name: id for id, name in enumerate(names)}, merges


TEXTS = 256 + 4
END = TEXTS
START = END + 1
VOCABULARY = TEXTS + len(MARKS) + len(TIMES)
NO_TIMES = TEXTS + len(MARKS) - 1


def mark(name: str) -> int:
  return TEXTS + MARKS.index(name)


@functools.cache
def _made(changes: tuple[tuple[str, object], ...], seed: int):
  fields = {
    "vocab_size": VOCABULARY,
    "num_mel_bins": MELS,
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 32,
    "max_source_positions": FRAMES,
    "max_target_positions": 20,
    "decoder_start_token_id": START,
    "eos_token_id": END,
    "bos_token_id": END,
    "pad_token_id": END,
    **dict(changes),
  }
  config = transformers.WhisperConfig(**fields)
  torch.manual_seed(seed)
  model = transformers.WhisperForConditionalGeneration(config).eval()
  originals.randomise(model, seed)
  with torch.no_grad():  # some sentences end before there are no more places
    model.model.decoder.embed_tokens.weight[END] *= 2
  model.generation_config = transformers.GenerationConfig(
    **GENERATION, max_length=config.max_target_positions
  )
  return model


GENERATION = {
  "decoder_start_token_id": START,
  "eos_token_id": END,
  "bos_token_id": END,
  "pad_token_id": END,
  "is_multilingual": True,
  "lang_to_id": {
    f"<|{language}|>": mark(f"<|{language}|>") for language in LANGUAGES
  },
  "task_to_id": {
    task: mark(f"<|{task}|>") for task in ("transcribe", "translate")
  },
  "no_timestamps_token_id": NO_TIMES,
  "prev_sot_token_id": mark("<|startofprev|>"),
  "max_initial_timestamp_index": 10,
  "suppress_tokens": [3, 7, *range(START, NO_TIMES)],
  "begin_suppress_tokens": [220, END],
}


def model(*, seed: int = 0, **changes):
  """Of random numbers everywhere, and of logits with about unit variance."""
  return _made(tuple(sorted(changes.items())), seed)


def extractor(seconds: int = SECONDS):
  return transformers.WhisperFeatureExtractor(
    feature_size=MELS, chunk_length=seconds
  )


def tokenizer(*, times: bool = True):
  vocabulary, merges = _pieces()
  found = transformers.WhisperTokenizer(
    vocabulary, merges, pad_token="<|endoftext|>"
  )
  found.add_special_tokens({"additional_special_tokens": list(MARKS)})
  if times:
    found.add_tokens(list(TIMES))
  return found


def save(folder: pathlib.Path, made, *, seconds: int = SECONDS) -> pathlib.Path:
  made.save_pretrained(folder)
  extractor(seconds).save_pretrained(folder)
  tokenizer().save_pretrained(folder)
  return folder


def waves(lengths, *, seed: int = 1) -> list[np.ndarray]:
  """Noise of so many samples, of which each part has a loudness of its own."""
  rng = np.random.default_rng(seed)

  def wave(length: int) -> np.ndarray:
    parts = 10.0 ** rng.uniform(-4, 0, -(-length // 1600))
    noise = rng.standard_normal(length)
    turned = np.cumsum(noise) / 40 if rng.random() < 0.5 else noise
    return (0.2 * turned * np.repeat(parts, 1600)[:length]).astype(np.float32)

  return [wave(length) for length in lengths]


def change(folder: pathlib.Path, file: str, **fields) -> None:
  """Sets fields of a JSON file; None takes one out."""
  told = json.loads((folder / file).read_text()) | fields
  kept = {name: value for name, value in told.items() if value is not None}
  (folder / file).write_text(json.dumps(kept))


CONFIGS = {
  "small": {},
  "odd": {
    "d_model": 18,
    "encoder_layers": 3,
    "decoder_layers": 1,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 21,
    "activation_function": "gelu_new",
  },
  "one language": {},
}


@functools.cache
def pair(root, name):
  """(their model, its folder, our backbone)."""
  original = model(**CONFIGS[name])
  folder = save(root / name / "theirs", original)
  if name == "one language":
    change(folder, "generation_config.json", is_multilingual=False)
  convert.convert(str(folder), root / name / "ours")
  return original, folder, store.load(root / name / "ours")


SAMPLES = (16_000, 9_000, 200)


def features(waves):
  found = extractor()(
    waves,
    sampling_rate=16_000,
    return_tensors="np",
    return_attention_mask=True,
  )
  return found["input_features"], found["attention_mask"]


def order(folder):
  return np.array(checkpoint.read(str(folder)).translated.order)


def adapted(stored):
  """(a backbone, features of `SAMPLES`, their lengths)."""
  mel_BFT, mask_BT = features(waves(SAMPLES))
  return stored, mel_BFT.swapaxes(1, 2), mask_BT.sum(axis=1)

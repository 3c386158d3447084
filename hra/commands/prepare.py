"""Recordings and their transcripts -> a folder that training reads.

    hra prepare --source=recordings.jsonl --out=data/mine

Each line of the manifest is one recording: {"audio_filepath": "anna/001.wav",
"text": "what was said", "speaker": "anna"}. Audio may be WAV, FLAC, OGG or MP3
at any rate; paths are relative to the manifest.
"""

import sys
from collections.abc import Sequence
from typing import Any, cast, get_args

from absl import flags
from etils import epath

from hra.commands import configs
from hra.config import PrepareConfig
from hra.data import prepare
from hra.data.tokenizer import Kind
from hra.errors import InputError

_DEFAULTS = PrepareConfig()
_SPLITS = ("train", "dev", "test")

_SOURCE = flags.DEFINE_string(
  "source",
  "",
  "What to prepare: a manifest (one JSON object a line, with `audio_filepath`, "
  "`text`, and `speaker` or `task`), or a folder that holds train.jsonl and, if "
  "you have them, dev.jsonl and test.jsonl.",
)
_OUT = flags.DEFINE_string(
  "out", "", "The folder to make. It must be new; an identical one is kept."
)
_DEV_FRACTION = flags.DEFINE_float(
  "dev_fraction",
  _DEFAULTS.dev_fraction,
  "Part of each speaker's sentences held out to decide when to stop training. "
  "Not used where there is a dev.jsonl.",
)
_TEST_FRACTION = flags.DEFINE_float(
  "test_fraction",
  _DEFAULTS.test_fraction,
  "Part of each speaker's sentences held out to measure the result. Not used "
  "where there is a test.jsonl.",
)
_TOKENIZER = flags.DEFINE_string(
  "tokenizer",
  "",
  "A Sentencepiece model to use, such as your backbone's. Empty trains one on "
  "the training transcripts.",
)
_VOCABULARY = flags.DEFINE_integer(
  "vocabulary",
  _DEFAULTS.vocabulary,
  "The most labels of a trained tokenizer, the blank included.",
)
_TOKENIZER_KIND = flags.DEFINE_enum(
  "tokenizer_kind",
  _DEFAULTS.kind,
  get_args(Kind),
  "What a label of a trained tokenizer stands for: a character (char), or a "
  "piece of a word (unigram, bpe).",
)
_JOBS = flags.DEFINE_integer(
  "jobs", _DEFAULTS.jobs, "How many recordings to decode at the same time."
)


def main(argv: Sequence[str]) -> None:
  """Prepares what the flags name and prints a summary.

  Raises:
    InputError: flags, manifests or recordings that can't be used.
  """
  del argv
  out = configs.required(_OUT, "data/mine")
  summary = prepare.prepare(
    _sources(configs.required(_SOURCE, "recordings.jsonl")),
    out,
    tokenizer=_TOKENIZER.value or None,
    vocabulary=_VOCABULARY.value,
    kind=cast(Kind, _TOKENIZER_KIND.value),
    dev_fraction=_DEV_FRACTION.value,
    test_fraction=_TEST_FRACTION.value,
    jobs=_JOBS.value,
  )
  sys.stdout.write(describe(summary) + f"\nprepared: {out}\n")


def describe(summary: dict[str, Any]) -> str:
  """A preparation's summary as a few lines of text."""
  row = "{:<8}{:>12}{:>8}{:>10}   {}"
  lines = [row.format("split", "utterances", "tasks", "hours", "seconds each")]
  parts = {**summary["splits"], "all": summary}
  for name, part in parts.items():
    seconds = part["seconds"]
    lengths = "{min:.1f} to {max:.1f}, median {median:.1f}".format(**seconds)
    hours = f"{part['hours']:.2f}"
    lines.append(
      row.format(name, part["utterances"], part["tasks"], hours, lengths)
    )
  tokenizer = summary["tokenizer"]
  rates = ", ".join(
    f"{rate} Hz ({count})" for rate, count in summary["source_rates"].items()
  )
  lines.append(f"sampling rates: {rates}")
  lines.append(f"characters: {summary['characters'].strip()}")
  lines.append(f"labels: {tokenizer['labels']}, the blank included")
  if tokenizer["unknown_characters"]:
    lines.append(
      "warning: left out, as the tokenizer can't spell them: "
      + tokenizer["unknown_characters"]
    )
  lines += [f"warning: {warning}" for warning in summary["warnings"]]
  return "\n".join(lines)


def _sources(source: str) -> dict[str, epath.Path]:
  path = epath.Path(source)
  if not path.is_dir():
    return {"train": path}
  files = {split: path / f"{split}.jsonl" for split in _SPLITS}
  sources = {split: file for split, file in files.items() if file.exists()}
  if "train" not in sources:
    found = sorted(file.name for file in path.glob("*.jsonl"))
    raise InputError(
      path,
      expected="a train.jsonl",
      got=", ".join(found) or "no .jsonl file",
      fix="--source may also be the manifest itself",
    )
  return sources


if __name__ == "__main__":
  from hra.commands import main as cli

  cli.run_verb("prepare")

"""Recordings and their transcripts -> a folder that training reads.

    hra prepare --source=recordings.jsonl --out=data/mine

What --source may be:

    recordings.jsonl        a manifest: one JSON object a line, such as
                            {"audio_filepath": "anna/001.wav", "text": "what was
                            said", "speaker": "anna"}
    FOLDER                  train.jsonl and, if there are, dev.jsonl and test.jsonl;
                            LibriSpeech's layout or its archives; a Kaldi data
                            folder (wav.scp, text, utt2spk)
    train-clean-100.tar.gz  an archive of LibriSpeech
    tfds:librispeech        an audio corpus of TensorFlow Datasets, with the `tf`
                            extra installed; tfds:NAME@48000 states a sampling rate

Audio may be WAV, FLAC, OGG or MP3 at any rate; source and result may be local or
on gs:// and s3://. Everything is checked, and all that is wrong is listed with its
file and line. When it is interrupted, the same command goes on.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import get_args, get_type_hints

from absl import flags
from etils import epath

from hra import config_tree
from hra.commands import configs
from hra.config import PrepareConfig
from hra.data import prepare
from hra.data.corpora.source import Fields
from hra.data.summary import describe
from hra.files import absolute

_DEFAULTS = PrepareConfig()
_TYPES = get_type_hints(PrepareConfig)
_SHOWN = 5

_SOURCE = flags.DEFINE_string(
  "source", "", "What to prepare: see above for the forms that it may have."
)
_OUT = flags.DEFINE_string(
  "out", "", "The folder to make. It must be new; an identical one is kept."
)
_SPLIT_BY = flags.DEFINE_enum(
  "split_by",
  _DEFAULTS.split_by,
  get_args(_TYPES["split_by"]),
  "How to divide. auto: as the source is divided, and what it lacks of dev and "
  "test is held out of train by sentence; given: only as the source is divided; "
  "sentence, session: all anew, so that no sentence (no sitting of a speaker) is "
  "in two splits.",
)
_DEV_FRACTION = flags.DEFINE_float(
  "dev_fraction",
  _DEFAULTS.dev_fraction,
  "Part of each speaker's sentences held out to decide when to stop training.",
)
_TEST_FRACTION = flags.DEFINE_float(
  "test_fraction",
  _DEFAULTS.test_fraction,
  "Part of each speaker's sentences held out to measure the result.",
)
_SEED = flags.DEFINE_integer(
  "seed", _DEFAULTS.seed, "Another one holds out other sentences."
)
_SKIP_BAD = flags.DEFINE_bool(
  "skip_bad",
  False,
  "Leave out what can't be used, and list it, instead of stopping.",
)
_MIN_SECONDS = flags.DEFINE_float(
  "min_seconds", _DEFAULTS.min_seconds, "A shorter recording can't be used."
)
_MAX_SECONDS = flags.DEFINE_float(
  "max_seconds",
  _DEFAULTS.max_seconds,
  "A longer one can't: cut it by `offset` and `duration`.",
)
_LABELS_PER_SECOND = flags.DEFINE_float(
  "labels_per_second",
  _DEFAULTS.labels_per_second,
  "A transcript with more labels than that can't be aligned to its recording; 0 "
  "asks for nothing.",
)
_TASK_FIELD = flags.DEFINE_string(
  "task_field",
  "",
  "The field that names the task, such as accent; `task` or else `speaker` "
  "where this is empty.",
)
_TEXT_FIELD = flags.DEFINE_string(
  "text_field", Fields().text, "The field with the transcript."
)
_TOKENIZER = flags.DEFINE_string(
  "tokenizer",
  "",
  "A tokenizer to use: its file, or a folder with one, such as your backbone's. "
  "Empty trains one on the training transcripts.",
)
_UNKNOWN = flags.DEFINE_enum(
  "unknown",
  _DEFAULTS.unknown,
  get_args(_TYPES["unknown"]),
  "A transcript with characters that --tokenizer can't spell: a problem, or drop "
  "them from it.",
)
_VOCABULARY = flags.DEFINE_integer(
  "vocabulary",
  _DEFAULTS.vocabulary,
  "The most labels of a trained tokenizer, the blank included.",
)
_TOKENIZER_KIND = flags.DEFINE_enum(
  "tokenizer_kind",
  _DEFAULTS.kind,
  get_args(_TYPES["kind"]),
  "What a label of a trained tokenizer stands for: a character (char), or a "
  "piece of a word (unigram, bpe).",
)
_JOBS = flags.DEFINE_integer(
  "jobs",
  _DEFAULTS.jobs,
  "Processes that decode recordings; 0 is one for each processor.",
)


def main(argv: Sequence[str]) -> None:
  """Prepares what the flags name and prints a summary.

  Raises:
    InputError: flags, a corpus or recordings that can't be used.
  """
  del argv
  out = absolute(configs.required(_OUT, "data/mine"))
  summary = prepare.prepare(
    configs.required(_SOURCE, "recordings.jsonl"),
    out,
    config=_config(),
    tokenizer=_TOKENIZER.value or None,
    fields=dataclasses.replace(
      Fields(), task=_TASK_FIELD.value or None, text=_TEXT_FIELD.value
    ),
  )
  lines = [describe(summary)]
  if summary["left_out"]:
    lines += _left_out(out / prepare.LEFT_OUT_FILE)
  sys.stdout.write("\n".join([*lines, "", f"prepared: {_OUT.value}", ""]))


def _config() -> PrepareConfig:
  values = {
    "dev_fraction": _DEV_FRACTION.value,
    "test_fraction": _TEST_FRACTION.value,
    "split_by": _SPLIT_BY.value,
    "min_seconds": _MIN_SECONDS.value,
    "max_seconds": _MAX_SECONDS.value,
    "labels_per_second": _LABELS_PER_SECOND.value,
    "unknown": _UNKNOWN.value,
    "bad": "skip" if _SKIP_BAD.value else "refuse",
    "vocabulary": _VOCABULARY.value,
    "kind": _TOKENIZER_KIND.value,
    "seed": _SEED.value,
    "jobs": _JOBS.value,
  }
  return config_tree.from_dict(PrepareConfig, values, path="flags")


def _left_out(file: epath.Path) -> list[str]:
  """What was left out, as lines for the terminal."""
  problems = [json.loads(line) for line in file.read_text().splitlines()]
  shown = [
    f"  {each['where']}: expected {each['expected']}, got {each['got']}"
    for each in problems[:_SHOWN]
  ]
  more = [f"  ... all in {file}"] if len(problems) > _SHOWN else []
  return [f"left out for {len(problems)} problem(s):", *shown, *more]


if __name__ == "__main__":
  from hra.commands import main as cli

  cli.run_verb("prepare")

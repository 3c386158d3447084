"""Audio files -> text, with a Submodel or with the bare backbone.

    hra transcribe --workdir=runs/mine --task=anna new/*.wav
    hra transcribe --backbone=tiny recording.flac

One line a file: its path, a tab, the text.
"""

import dataclasses
import sys
from collections.abc import Sequence

from absl import flags
from etils import epath

from hra import config_tree
from hra.commands import configs, process, searching
from hra.config import ChunksConfig, SearchConfig
from hra.errors import InputError

TAKES_FILES = True
_CHUNKS = ChunksConfig()

flags.adopt_module_key_flags(searching)
_WORKDIR = flags.DEFINE_string(
  "workdir", "", "A trained run's folder: its backbone and its Submodels."
)
_TASK = flags.DEFINE_string(
  "task", "", "Whose Submodel to use; empty is the bare backbone."
)
_BACKBONE = flags.DEFINE_string(
  "backbone", "", "A backbone's folder, or tiny; with --workdir, the run's own."
)
_GUARD = flags.DEFINE_bool(
  "guard",
  True,
  "Answer by the bare backbone where the Submodel was no better than it on its "
  "dev recordings.",
)
_BATCH = flags.DEFINE_integer(
  "batch", 16, "Files that are run together.", lower_bound=1
)


_CHUNK = flags.DEFINE_float(
  "chunk_seconds",
  _CHUNKS.seconds,
  "Longer recordings are heard in overlapping pieces of this length, greedily; 0 "
  "cuts none. LAS always hears a recording whole.",
)
_OVERLAP = flags.DEFINE_float(
  "chunk_overlap",
  _CHUNKS.overlap,
  "Seconds that neighbouring pieces have in common.",
)


def main(argv: Sequence[str]) -> None:
  paths = argv[1:]
  if not paths:
    raise InputError(
      "hra transcribe",
      expected="audio files",
      got="none",
      fix="hra transcribe --workdir=runs/mine --task=NAME FILE...",
    )
  process.set_up()
  from hra.data.audio import decode
  from hra.evaluate.search import open_search

  chunks = dataclasses.replace(
    _CHUNKS, seconds=_CHUNK.value, overlap=_OVERLAP.value
  )
  config_tree.validate(chunks, path="chunk")
  recognizer, submodel = _load()
  stored = recognizer.stored
  search = open_search(
    searching.given(SearchConfig()),
    stored.tokenizer,
    decoder=stored.config.decoder.kind,
  )
  if _GUARD.value and submodel is not None and submodel.worse_than_backbone:
    print(
      f"hra transcribe: the Submodel of task {submodel.task!r} was no better than "
      "the backbone on its dev recordings: the backbone answers (--noguard uses "
      "the Submodel)",
      file=sys.stderr,
    )
  for start in range(0, len(paths), _BATCH.value):
    chosen = paths[start : start + _BATCH.value]
    texts = recognizer.transcribe(
      [decode(path) for path in chosen],
      submodels=[submodel] * len(chosen),
      search=search,
      guard=_GUARD.value,
      chunks=chunks,
    )
    for path, text in zip(chosen, texts, strict=True):
      print(f"{path}\t{text}", flush=True)


def _load():
  from hra import run, submodels
  from hra.evaluate.recognizer import load_backbone

  if not _WORKDIR.value:
    if _TASK.value:
      configs.required(_WORKDIR, "runs/mine")
    return load_backbone(_BACKBONE.value or "tiny"), None
  workdir = epath.Path(_WORKDIR.value)
  recognizer = load_backbone(_BACKBONE.value or run.backbone_of(workdir))
  if not _TASK.value:
    return recognizer, None
  store = submodels.Store(workdir / "submodels")
  if _TASK.value not in store:
    raise InputError(
      f"--task={_TASK.value}",
      expected=f"one of {len(store)} tasks ({', '.join(sorted(store)[:8])}...)",
      got="an unknown one",
    )
  return recognizer, store[_TASK.value]


if __name__ == "__main__":
  from hra.commands import main as cli

  cli.run_verb("transcribe")

"""Audio files -> text, with a Submodel or with the bare backbone.

    hra transcribe --workdir=runs/mine --task=anna new/*.wav
    hra transcribe --backbone=tiny --store=store --task=anna new/*.wav
    hra transcribe --backbone=tiny recording.flac
    hra transcribe --backbone=backbones/parakeet --submodel=peft/anna new/*.wav

    hra transcribe --backbone=backbones/whisper --language=de --timestamps talk.mp3

One line a file: its path, a tab, the text; with --timestamps one for each segment.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from hra import config_tree
from hra.commands import choosing, process, searching
from hra.config import ChunksConfig, SearchConfig
from hra.errors import InputError

if TYPE_CHECKING:
  from hra.evaluate.segments import Segment

TAKES_FILES = True
_CHUNKS = ChunksConfig()

flags.adopt_module_key_flags(searching)
flags.adopt_module_key_flags(choosing)
_STORE = flags.DEFINE_string(
  "store", "", "A store's folder or URL, where the Submodel of --task is."
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
  "Longer recordings are heard in overlapping pieces of this length, by greedy "
  "search or by any of Whisper's, which hears 30 s at most; 0 cuts none. LAS always "
  "hears a recording whole.",
)
_OVERLAP = flags.DEFINE_float(
  "chunk_overlap",
  None,
  "Seconds that neighbouring pieces have in common; by default "
  f"{_CHUNKS.overlap:g}, half of a piece at most.",
)


_LANGUAGE = flags.DEFINE_string(
  "language",
  "",
  "What is spoken, such as de (Whisper); empty is what the run or the backbone's "
  "folder says.",
)
_TRANSLATE = flags.DEFINE_bool(
  "translate", None, "Into English (Whisper); else as the run says."
)
_TIMESTAMPS = flags.DEFINE_bool(
  "timestamps",
  None,
  "Say when each segment was said (Whisper): a line each, the path, its beginning "
  "and its end in seconds, the text, with tabs between them.",
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

  overlap = min(_CHUNKS.overlap, _CHUNK.value / 2)
  if _OVERLAP.value is not None:
    overlap = _OVERLAP.value
  chunks = dataclasses.replace(_CHUNKS, seconds=_CHUNK.value, overlap=overlap)
  config_tree.validate(chunks, path="--chunk_seconds, --chunk_overlap: chunk")
  recognizer, submodel = choosing.load(store=_STORE.value, **_asked())
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
    hear: Callable[..., Sequence[Any]] = (
      recognizer.segments if _TIMESTAMPS.value else recognizer.transcribe
    )
    found = hear(
      [decode(path) for path in chosen],
      submodels=[submodel] * len(chosen),
      search=search,
      guard=_GUARD.value,
      chunks=chunks,
    )
    for path, heard in zip(chosen, found, strict=True):
      for line in _lines(heard):
        print(f"{path}\t{line}", flush=True)


def _asked() -> dict[str, Any]:
  """What the flags ask of a decoder with prompts."""
  asked: dict[str, Any] = {}
  if _LANGUAGE.value:
    asked["language"] = _LANGUAGE.value
  if _TRANSLATE.value is not None:
    asked["task"] = "translate" if _TRANSLATE.value else "transcribe"
  if _TIMESTAMPS.value is not None:
    asked["timestamps"] = _TIMESTAMPS.value
  return asked


def _lines(heard: "str | list[Segment]") -> list[str]:
  """Of a recording: its text, or each segment of it."""
  if isinstance(heard, str):
    return [heard]
  return [f"{each.start:.2f}\t{each.end:.2f}\t{each.text}" for each in heard]


if __name__ == "__main__":
  from hra.commands import main as cli

  cli.run_verb("transcribe")

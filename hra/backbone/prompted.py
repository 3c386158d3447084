"""What a decoder with prompts is asked for: a language, a task, times.

In: what a run or a user asks. Out: the configuration with the prompt of it, or a clear
no of a decoder that has none.
"""

import dataclasses
from typing import NamedTuple

from hra.config import BackboneConfig, Task
from hra.data import prompts
from hra.data.tokenizer import Tokenizer
from hra.errors import InputError


class Asked(NamedTuple):
  """Of a decoder that prompts speak to (`prompted`)."""

  language: str = ""
  """Empty is the one that the folder says."""
  task: Task = "transcribe"
  timestamps: bool = False


def prompted(
  config: BackboneConfig, tokenizer: Tokenizer, *, language: str
) -> BackboneConfig:
  """With the prompt of a language, and of the task that the decoder is set.

  Args:
    language: empty is the one that the decoder is set to.

  Raises:
    InputError: a language that the decoder doesn't know, as one without prompts.
  """
  decoder = config.decoder
  several = bool(decoder.language)
  asked = {
    "language": (language, several),
    "task": (decoder.task != "transcribe" and decoder.task, several),
    "timestamps": (decoder.timestamps, decoder.first_time > 0),
  }
  for field, (given, possible) in asked.items():
    if given and not possible:
      raise InputError(
        f"config.backbone.decoder.{field}",
        expected="none: the backbone's decoder has no prompt that asks for it",
        got=str(given),
        fix="leave it out (--language, --translate, --timestamps)",
      )
  if not (several or decoder.first_time):  # its prompt is its own
    return config
  language = language or decoder.language
  labels = prompts.prompt(
    tokenizer.labels,
    start=decoder.prompt[0],
    language=language,
    task=decoder.task,
    timestamps=decoder.timestamps,
  )
  decoder = dataclasses.replace(decoder, language=language, prompt=labels)
  return dataclasses.replace(config, decoder=decoder)

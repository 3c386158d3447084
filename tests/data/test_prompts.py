"""What begins a sentence of a prompted decoder."""

import pytest

from hra.data.prompts import languages, prompt
from hra.errors import InputError

LABELS = (
  "<blank>",
  "a",
  "<|start|>",
  "<|en|>",
  "<|haw|>",
  "<|translate|>",
  "<|transcribe|>",
  "<|notimestamps|>",
  "<|0.00|>",
)


def _prompt(**changes):
  given = {"language": "haw", "task": "translate", "timestamps": False}
  return prompt(LABELS, start=2, **(given | changes))


def test_language_task_and_times_by_their_labels():
  assert languages(LABELS) == ["en", "haw"]
  assert _prompt() == (2, 4, 5, 7)
  assert _prompt(timestamps=True) == (2, 4, 5)
  assert _prompt(task="transcribe", language="en") == (2, 3, 6, 7)


def test_without_a_language_there_is_no_task():
  assert _prompt(language="") == (2, 7)
  assert prompt(
    LABELS[:3], start=1, language="", task="transcribe", timestamps=False
  ) == (1,)


@pytest.mark.parametrize("language", ["de", "EN", "english", "translate"])
def test_a_language_that_is_not_known(language):
  with pytest.raises(InputError, match="one of the decoder's 2: en, haw") as it:
    _prompt(language=language)
  assert repr(language) in str(it.value)

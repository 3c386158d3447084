"""What of a batch is padding, on recordings of LibriSpeech's lengths.

    python benchmarks/padding.py

Plans whole jobs by the program's own length buckets and joint steps; nothing is
trained. Writes docs/padding.json and docs/padding.md.
"""

from collections.abc import Sequence
from typing import Any

import lengths
import numpy as np
import results
from absl import app

_OUT = results.define_out()

_POOLED = "pooled, batches of 64"
CASES: tuple[tuple[str, str, int, float, int, int, int, int], ...] = (
  # what, part, tasks, recordings of each, buckets, places, utterances, epochs
  (_POOLED, "train-clean-100", 1, 28_539, 4, 1, 64, 1),
  (_POOLED, "train-clean-100", 1, 28_539, 8, 1, 64, 1),
  (_POOLED, "train-clean-100", 1, 28_539, 12, 1, 64, 1),
  (_POOLED, "train-other-500", 1, 148_688, 12, 1, 64, 1),
  (_POOLED, "test-clean", 1, 28_539, 12, 1, 64, 1),
  ("251 speakers, 8 x 4", "train-clean-100", 251, 113.7, 12, 8, 4, 10),
  ("251 speakers, 16 x 4", "train-clean-100", 251, 113.7, 10, 16, 4, 10),
  ("251 speakers, 16 x 8", "train-clean-100", 251, 113.7, 10, 16, 8, 10),
  ("251 speakers, 64 x 8", "train-clean-100", 251, 113.7, 4, 64, 8, 10),
  ("251 speakers, 128 x 8", "train-clean-100", 251, 113.7, 4, 128, 8, 10),
  ("2,338 speakers, 128 x 4", "train-other-500", 2338, 120.3, 10, 128, 4, 4),
)


def main(argv: Sequence[str]) -> None:
  del argv
  table = [_row(*case) for case in CASES]
  about = results.about("padding")
  results.write(
    "padding",
    figures={**about, "rows": table},
    markdown=_markdown(about, table),
    out=_OUT.value,
  )


def _row(
  what: str,
  part: str,
  tasks: int,
  recordings: float,
  buckets: int,
  places: int,
  utterances: int,
  epochs: int,
) -> dict[str, Any]:
  rng = np.random.default_rng(0)
  found = lengths.measured(
    [lengths.drawn(part, round(recordings), rng)]
    if tasks == 1
    else lengths.speakers(part, tasks, mean=recordings, rng=rng),
    buckets=buckets,
    places=places,
    utterances=utterances,
    epochs=epochs,
  )
  return {"what": what, "lengths": part, **found._asdict()}


def _markdown(about: dict[str, Any], table: Sequence[dict[str, Any]]) -> str:
  lines = [
    results.title(
      about,
      note="lengths drawn from published quantiles of LibriSpeech's parts.",
    ),
    "",
    "| batches | lengths of | compiled shapes | not speech | of that in filled "
    "places | places filled |",
    "|---|---|---|---|---|---|",
  ]
  lines += [
    f"| {row['what']} | {row['lengths']} | {row['shapes']} | "
    f"{100 * row['waste']:.1f}% | {100 * row['padding']:.1f}% | "
    f"{100 * row['fill']:.1f}% |"
    for row in table
  ]
  return "\n".join(
    [
      *lines,
      "",
      "`A x B` are tasks and recordings of each; a place is a task's. The least that "
      "12 buckets can pad, whatever fills a batch, is 4.9% of the first part's.",
      "",
      "Joint steps stay full while there are several times `buckets x A` tasks: each "
      "task waits for a step of the length that its own next minibatch has, which no "
      "other task may change. With fewer, take fewer buckets, or fewer tasks at a time.",
      "",
    ]
  )


if __name__ == "__main__":
  app.run(main)

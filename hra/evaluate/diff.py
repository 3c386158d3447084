"""Two texts -> their words side by side, each with its kind of edit."""

from typing import NamedTuple

import jiwer


class Pair(NamedTuple):
  """One column of an alignment; an absent word is empty."""

  kind: str
  """`equal`, `substitute`, `delete` or `insert`."""
  reference: str
  hypothesis: str


def align(reference: str, hypothesis: str) -> list[Pair]:
  """A minimal word alignment of two normalised texts, in reading order."""
  output = jiwer.process_words(reference, hypothesis)
  said, heard = output.references[0], output.hypotheses[0]
  pairs = []
  for chunk in output.alignments[0]:
    left = said[chunk.ref_start_idx : chunk.ref_end_idx]
    right = heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
    for place in range(max(len(left), len(right))):
      pairs.append(
        Pair(
          chunk.type,
          left[place] if left else "",
          right[place] if right else "",
        )
      )
  return pairs

"""What an engine hears of recordings: pieces, and the lengths of batches."""

from collections.abc import Sequence

from hra.backbone.store import StoredBackbone
from hra.data.cutting import Piece
from hra.dims import SAMPLE_RATE
from hra.evaluate.long import Cutting
from hra.serve.interface import TooLong


def buckets(
  stored: StoredBackbone, cutting: Cutting | None, seconds: Sequence[float]
) -> tuple[int, ...]:
  """Samples, ascending: those asked for, up to what is heard at once.

  A front end that pads everything to one length has one.
  """
  asked = sorted({round(each * SAMPLE_RATE) for each in seconds})
  most = stored.most_samples or asked[-1]
  if cutting is not None:
    most = cutting.size
  if stored.frontend.pad_to:
    return (most,)
  return (*(each for each in asked if each < most), most)


def pieces(
  samples: int, cutting: Cutting | None, *, longest: int, most: int
) -> list[Piece]:
  """
  Args:
    longest: samples that are heard at once.
    most: pieces of one recording.

  Raises:
    TooLong: it has to stay whole and is longer, or has more pieces.
  """
  if cutting is None:
    found, bound = [Piece(0, samples)], f"{longest / SAMPLE_RATE:g} s"
  else:
    found, bound = cutting.pieces(samples), f"what is {most} pieces"
  if len(found) > most or (cutting is None and samples > longest):
    raise TooLong(
      "recording",
      expected=f"at most {bound}",
      got=f"{samples / SAMPLE_RATE:.1f} s",
      fix="send it in parts",
    )
  return found

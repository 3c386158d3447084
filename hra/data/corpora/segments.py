"""Which part of which file an utterance is.

Enters: records. Leaves: keys that two records share only where they are the same
recording again, and words for them.
"""

from hra.data.corpora import fields
from hra.data.records import Record

Key = tuple[str, float | None, float | None, str | None]


def key(record: Record) -> Key:
  """What only the same recording has too: its path; of a segment, all of it.

  A segment may be another task's too, as two speakers' at once.
  """
  if record.offset is None:
    return record.path, None, None, None
  return record.path, record.offset, record.duration, record.task


def shown(record: Record) -> str:
  """The recording in words: `'x.wav' from 0 s for 2 s`."""
  path = fields.shown(record.path)
  if record.offset is None:
    return path
  if record.duration is None:
    return f"{path} from {record.offset:g} s on"
  return f"{path} from {record.offset:g} s for {record.duration:g} s"

"""LibriSpeech's layout -> records.

Enters: a folder, local or on a bucket,

    [LibriSpeech/]SUBSET/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt
    [LibriSpeech/]SUBSET/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN.flac

or one SUBSET of it. A line of a transcript is `ID WORDS`; recordings may also be
WAV, OGG, Opus or MP3. Leaves: a list of `Record` by id; the task is the speaker, the
session the chapter, the split follows from the subset (`train-*`: train;
`dev-clean`: dev; `test-clean`: test; `dev-other`: dev_other).

The corpus: Panayotov et al. 2015, https://www.openslr.org/12
"""

import dataclasses
import os
import re

from etils import epath

from hra.data import splits
from hra.data.corpora import fields, lines
from hra.data.records import Problems, Record, repeated
from hra.errors import InputError
from hra.files import is_remote, storage

_TRANSCRIPT = ".trans.txt"
_DEPTHS = (2, 3, 4)
"""Folders between the one given and a transcript: of a SUBSET, of LibriSpeech, of
the folder that holds it."""
_LINE = re.compile(r"([^ \t]+)[ \t]+(.+)", re.DOTALL)


@dataclasses.dataclass
class _Chapter:
  """A folder with the recordings of one speaker's reading of one chapter."""

  folder: epath.Path
  shown: str
  """The folder, for messages."""
  split: str
  transcripts: list[epath.Path] = dataclasses.field(default_factory=list)
  audio: dict[str, epath.Path] = dataclasses.field(default_factory=dict)

  @property
  def name(self) -> str:
    return f"{self.folder.parent.name}-{self.folder.name}"


def is_part(name: str) -> bool:
  """Whether a file of that name is a transcript or a recording."""
  is_audio = name.lower().endswith(fields.AUDIO)
  return (is_audio or name.endswith(_TRANSCRIPT)) and not name.startswith(".")


def depth(folder: epath.Path) -> int | None:
  """How many folders lie between `folder` and transcripts; None: no such layout.

  Raises:
    StorageError: the folder can't be read.
  """
  with storage(folder, expected="a folder in LibriSpeech's layout"):
    for levels in _DEPTHS:
      if any(folder.glob("*/" * levels + f"*{_TRANSCRIPT}")):
        return levels
  return None


def read(
  folder: epath.Path,
  *,
  problems: Problems,
  origin: epath.Path | None = None,
  subset: str | None = None,
) -> list[Record]:
  """The records of a folder; what can't be used becomes problems.

  Args:
    folder: ROOT, the folder around it, or one SUBSET.
    problems: where transcripts without recording and the like are listed.
    origin: what the folder was unpacked from, for messages.
    subset: the name of the only subset, if `folder` is it; None: the folder's.

  Raises:
    InputError: the folder isn't in LibriSpeech's layout.
    StorageError: it can't be read.
  """
  levels = depth(folder)
  if levels is None:
    raise InputError(
      origin or folder,
      expected="LibriSpeech's SUBSET/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt",
      got="no transcripts",
    )
  known: dict[str, str] = {}
  records = []
  for chapter in _chapters(
    folder, levels, shown=str(origin or folder), subset=subset or _name(folder)
  ):
    records += _read(chapter, known, problems=problems)
  return sorted(records, key=lambda record: record.id)


def subset_names(folder: epath.Path) -> set[str]:
  """The subsets that a folder holds: none, where it isn't in the layout.

  Raises:
    StorageError: the folder can't be read.
  """
  levels = depth(folder)
  if levels is None:
    return set()
  if levels == _DEPTHS[0]:
    return {_name(folder)}
  with storage(folder, expected="a folder in LibriSpeech's layout"):
    return {path.name for path in folder.glob("*/" * (levels - 3) + "*")}


def _name(folder: epath.Path) -> str:
  if is_remote(folder):
    return folder.name
  return os.path.basename(os.path.abspath(folder))  # of `.` too


def _chapters(
  folder: epath.Path, levels: int, *, shown: str, subset: str
) -> list[_Chapter]:
  """The chapters by path, with what lies in them."""
  chapters: dict[epath.Path, _Chapter] = {}
  with storage(folder, expected="a folder in LibriSpeech's layout"):
    paths = sorted(folder.glob("*/" * levels + "*"))
  for path in paths:
    parts = path.relative_to(folder).parts
    if not is_part(path.name):
      continue
    if path.parent not in chapters:
      name = subset if levels == _DEPTHS[0] else parts[levels - 3]
      chapters[path.parent] = _Chapter(
        folder=path.parent,
        shown="/".join([shown, *parts[:-1]]),
        split=splits.known_as(name),
      )
    chapter = chapters[path.parent]
    if path.name.endswith(_TRANSCRIPT):
      chapter.transcripts.append(path)
    else:
      other = chapter.audio.setdefault(path.stem, path)
      chapter.audio[path.stem] = min(other, path, key=_preference)
  return list(chapters.values())


def _preference(path: epath.Path) -> int:
  return fields.AUDIO.index(path.suffix.lower())


def _read(
  chapter: _Chapter, known: dict[str, str], *, problems: Problems
) -> list[Record]:
  """A chapter's records; `known` holds where each id of the corpus stands."""
  records = []
  silent = dict(chapter.audio)
  for path in chapter.transcripts:
    shown = f"{chapter.shown}/{path.name}"
    if path.name != f"{chapter.name}{_TRANSCRIPT}":
      problems.add(
        InputError(
          shown,
          expected=f"the transcript {chapter.name}{_TRANSCRIPT} of its folder",
          got=fields.shown(path.name),
        )
      )
      continue
    for where, line in lines.read(
      path, expected="a transcript", problems=problems, shown=shown
    ):
      try:
        record = _record(line, chapter, known, where=where)
      except InputError as error:
        problems.add(error)
      else:
        records.append(record)
      silent.pop(line.split(maxsplit=1)[0], None)
  for name in sorted(silent):
    problems.add(
      InputError(
        f"{chapter.shown}/{silent[name].name}",
        expected=f"a line in {chapter.name}{_TRANSCRIPT}",
        got="a recording without transcript",
      )
    )
  return records


def _record(
  line: str, chapter: _Chapter, known: dict[str, str], *, where: str
) -> Record:
  match = _LINE.fullmatch(line)
  if match is None:
    raise InputError(where, expected="ID WORDS", got=fields.shown(line))
  name = fields.name(match[1], field="id", where=where)
  text = fields.transcript(match[2], field="text", where=where)
  if not name.startswith(f"{chapter.name}-"):
    raise InputError(
      where,
      expected=f"an id of this chapter ({chapter.name}-...)",
      got=fields.shown(name),
    )
  first = known.setdefault(name, where)
  if first != where:
    raise repeated(where, what="id", shown=fields.shown(name), first=first)
  if name not in chapter.audio:
    raise InputError(
      where,
      expected=f"a recording {name}.flac beside the transcript",
      got="none",
    )
  return Record(
    id=name,
    path=str(chapter.audio[name]),
    text=text,
    task=fields.name(chapter.folder.parent.name, field="speaker", where=where),
    session=chapter.name,
    split=chapter.split,
    where=where,
  )

"""Finished runs -> one self-contained HTML page.

The page needs no network, no other file and no JavaScript (a little inline
script sorts tables where it may run); its content security policy forbids the
rest. Whatever comes from a run is escaped: names and transcripts are data. The
same runs give the same bytes.
"""

import base64
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
from etils import epath

from hra import config_tree
from hra.errors import InputError
from hra.evaluate import figures
from hra.evaluate.diff import Pair, align
from hra.evaluate.metrics import Transcript, worst
from hra.evaluate.normalize import normalizer
from hra.evaluate.runs import Run, read_run
from hra.evaluate.sweep import SweepRuns, read_sweep, short_names, shown
from hra.evaluate.sweep_figure import sweep_plot
from hra.evaluate.table import count, percent, points, significant
from hra.files import write_aside

MOST_CLIPS = 12
"""Recordings embedded in a page."""
MOST_CLIP_BYTES = 1 << 20
"""Of one recording: about 32 s of 16-bit, 16 kHz audio."""

_PAGE = pathlib.Path(__file__).with_name("page")


class Utterance(NamedTuple):
  """One of the worst utterances, ready to draw."""

  transcript: Transcript
  reference: str
  hypothesis: str
  backbone: str | None
  pairs: list[Pair]
  errors: int
  words: int
  backbone_errors: int | None
  audio: str | None
  """A data URI."""


class Section(NamedTuple):
  """One run's part of the page."""

  name: str
  results: Mapping[str, Any]
  tasks: list[tuple[str, Mapping[str, Any]]]
  trained_tasks: int
  compared: int
  """Tasks that have a change against the backbone."""
  better: int
  surely_better: int
  surely_worse: int
  falls_back: int
  """Tasks that the backbone answers for."""
  dumbbells: figures.DumbbellPlot | None
  curves: list[figures.LineChart]
  shares: list[figures.Share]
  utterances: list[Utterance]
  settings: list[tuple[str, list[tuple[str, str]]]]
  confidence: float
  scored_on: tuple[Any, ...]
  """What must agree before runs can be compared."""


def write_report(
  runs: Sequence[epath.PathLike], out: epath.PathLike
) -> epath.Path:
  """Writes the page of one run, or of several with their comparison on top.

  Args:
    runs: folders of finished runs.
    out: the page's path; its folder is made where it is absent.

  Returns:
    The page's path.

  Raises:
    InputError: no runs, one given twice, or one that is not finished.
  """
  folders = [epath.Path(run) for run in runs]
  if not folders:
    raise InputError("runs", expected="at least one run's folder", got="none")
  resolved = [folder.resolve() for folder in folders]
  for place, folder in enumerate(resolved):
    if folder in resolved[:place]:
      raise InputError(folder, expected="each run once", got="it twice")
  return _write(out, _render([read_run(folder) for folder in resolved]))


def write_sweep_report(
  workdir: epath.PathLike, out: epath.PathLike | None = None
) -> epath.Path:
  """Writes the page of a sweep's finished runs: a table, a plot, each run.

  Args:
    workdir: the sweep's folder.
    out: the page's path; report.html in that folder if None.

  Returns:
    The page's path.

  Raises:
    InputError: no sweep stands there, none of its runs is finished, or one that
      it lists as finished can't be read.
  """
  sweep = read_sweep(workdir)
  if not sweep.done:
    raise InputError(
      sweep.path,
      expected="a finished run",
      got=f"none of {len(sweep.runs)}",
      fix="give the command of the sweep again",
    )
  runs = [read_run((sweep.path / run.name).resolve()) for run in sweep.done]
  return _write(out or sweep.path / "report.html", _render(runs, sweep=sweep))


def _write(out: epath.PathLike, page: str) -> epath.Path:
  path = epath.Path(out)
  path.parent.mkdir(parents=True, exist_ok=True)
  write_aside(path, page.encode("utf-8", "replace"))
  return path


def _render(runs: Sequence[Run], *, sweep: SweepRuns | None = None) -> str:
  names = [run.name for run in runs]
  clips = MOST_CLIPS
  sections = []
  for run in runs:
    unique = names.count(run.name) == 1
    section = _section(run, run.name if unique else str(run.path), clips)
    clips -= sum(item.audio is not None for item in section.utterances)
    sections.append(section)
  ranked = sorted(sections, key=_rank)
  several = len(runs) > 1
  script = (_PAGE / "sort.js").read_text()
  digest = hashlib.sha256(script.encode()).digest()
  return (
    _environment()
    .get_template("report.html")
    .render(
      sections=sections,
      ranked=ranked,
      sweep=sweep,
      short=short_names(sweep.fields) if sweep else {},
      sweep_plot=sweep_plot(sweep) if sweep else None,
      comparison=figures.dumbbells(
        [(item.name, item.results["overall"]) for item in ranked]
      )
      if several
      else None,
      trade_off=figures.trade_off(
        [(item.name, item.results) for item in ranked]
      ),
      style=(_PAGE / "report.css").read_text(),
      script=script,
      script_digest=base64.b64encode(digest).decode(),
    )
  )


def _environment() -> jinja2.Environment:
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_PAGE),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters.update(
    percent=percent,
    count=count,
    shown=shown,
    points=lambda rate: points(rate).replace("-", "\u2212"),
  )
  environment.tests["significant"] = significant
  return environment


def _section(run: Run, name: str, clips: int) -> Section:
  results = run.results
  tasks = sorted(
    results["tasks"].items(), key=lambda item: (-_before(item[1]), item[0])
  )
  changes = [
    task["difference"] for _, task in tasks if task["difference"] is not None
  ]
  sure = [task["difference"] for _, task in tasks if significant(task)]
  return Section(
    name=name,
    results=results,
    tasks=tasks,
    trained_tasks=run.tasks,
    compared=len(changes),
    better=sum(change < 0 for change in changes),
    surely_better=sum(change < 0 for change in sure),
    surely_worse=sum(change > 0 for change in sure),
    falls_back=sum(task.get("verdict") == "not better" for _, task in tasks),
    dumbbells=figures.dumbbells(tasks),
    curves=figures.curves(run),
    shares=figures.shares(results["parameters"]),
    utterances=_utterances(run, clips),
    settings=_settings(run.config),
    confidence=run.scoring.confidence,
    scored_on=(
      results["split"],
      results["normalizer"],
      results["overall"]["utterances"],
      results["overall"]["words"],
    ),
  )


def _utterances(run: Run, clips: int) -> list[Utterance]:
  normalize = normalizer(run.scoring.normalizer)
  utterances = []
  for transcript in worst(run.transcripts, run.scoring):
    reference = normalize(transcript.reference)
    hypothesis = normalize(transcript.hypothesis)
    alone = transcript.backbone_hypothesis
    backbone = None if alone is None else normalize(alone)
    pairs = align(reference, hypothesis)
    audio = _audio(run, transcript) if clips > 0 else None
    clips -= audio is not None
    utterances.append(
      Utterance(
        transcript=transcript,
        reference=reference,
        hypothesis=hypothesis,
        backbone=backbone,
        pairs=pairs,
        errors=_errors(pairs),
        words=len(reference.split()),
        backbone_errors=None
        if backbone is None
        else _errors(align(reference, backbone)),
        audio=audio,
      )
    )
  return utterances


def _errors(pairs: Sequence[Pair]) -> int:
  return sum(pair.kind != "equal" for pair in pairs)


def _audio(run: Run, transcript: Transcript) -> str | None:
  """The clip as a data URI; None where there is none that may be embedded.

  Only RIFF files of bounded size inside the run's folder are: a transcript
  line must not be able to publish another file.
  """
  if not transcript.audio:
    return None
  path = (run.path / transcript.audio).resolve()
  if not path.is_relative_to(run.path) or not path.is_file():
    return None
  if path.stat().length > MOST_CLIP_BYTES:
    return None
  data = path.read_bytes()
  if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
    return None
  return "data:audio/wav;base64," + base64.b64encode(data).decode()


def _settings(
  config: Mapping[str, Any],
) -> list[tuple[str, list[tuple[str, str]]]]:
  """config.json as (group, rows of dotted name and value)."""
  experiment = config.get("config", {})
  about = {name: value for name, value in config.items() if name != "config"}
  plain: list[tuple[str, str]] = []
  groups: list[tuple[str, list[tuple[str, str]]]] = []
  for name, value in (about | experiment).items():
    if isinstance(value, Mapping) and value:
      rows = config_tree.flat(value).items()
      groups.append((name, [(path, _shown(each)) for path, each in rows]))
    else:
      plain.append((name, _shown(value)))
  return [("run", plain), *groups] if plain else groups


def _shown(value: Any) -> str:
  return value if isinstance(value, str) else json.dumps(value)


def _before(task: Mapping[str, Any]) -> float:
  """The WER without adaptation where it is known; no words sort last."""
  for key in ("backbone_wer", "wer"):
    if task[key] is not None:
      return task[key]
  return -1.0


def _rank(section: Section) -> tuple[float, str]:
  wer = section.results["overall"]["wer"]
  return (float("inf") if wer is None else wer, section.name)

"""Greedy search, a beam, and a beam with a language model, beside one another.

    hra train --config=experiments/tiny_rnnt.py --workdir=runs/tiny_rnnt
    hra train --config=experiments/quickstart.py --workdir=runs/rnnt_speakers \\
      --config.backbone_path=runs/tiny_rnnt/backbone
    hra train --config=experiments/tiny_lm.py --workdir=runs/lm \\
      --config.backbone_path=runs/tiny_rnnt/backbone \\
      --config.data.path=runs/tiny_rnnt/data/prepared
    python benchmarks/decoding.py --runs=runs/rnnt_speakers --language_model=runs/lm/lm

Runs that adapt a backbone to speakers, each heard by its speakers' own Submodels. What a
search has to choose, among the grid below, is chosen on dev; test is heard once for each
search that was chosen. No sentence of test stands among those that the language model has read; the
command refuses if one does. Intervals are of 95%, over speakers and their utterances,
paired. Writes docs/decoding.json and docs/decoding.md.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import results
import study_statistics as statistics
from absl import app, flags, logging
from etils import epath

from hra import claim, run, scoring
from hra.commands import process
from hra.config import EvalConfig, SearchConfig
from hra.data.dataset import Split, open_split
from hra.errors import InputError
from hra.evaluate import metrics
from hra.evaluate.normalize import normalizer
from hra.run import Parts
from hra.train.state import TrainState

_OUT = results.define_out()
_RUNS = flags.DEFINE_list("runs", [], "Folders of runs that adapted.")
_LANGUAGE_MODEL = flags.DEFINE_string("language_model", "", "A folder lm.")
_BEAM = flags.DEFINE_integer("beam", 8, "Hypotheses.")

GREEDY, BEAM = "greedy", "beam"
LONGER, FUSED = "beam, bonus", "beam, bonus, language model"
WEIGHTS = (0.2, 0.4, 0.8)
BONUSES = (0.0, 0.5, 1.0, 2.0)


def main(argv: Sequence[str]) -> None:
  del argv
  logging.set_verbosity(logging.FATAL)
  process.set_up()
  rows: dict[str, Any] = {}
  for folder in _RUNS.value:
    parts = run.reopen(folder)
    rows[parts.workdir.name] = _rows(parts, run.trained_state(parts))
  about = results.about("decoding")
  results.write(
    "decoding",
    figures={**about, "beam": _BEAM.value, "runs": rows},
    markdown=_markdown(about, rows),
    out=_OUT.value,
  )


def _rows(parts: Parts, trained: TrainState) -> dict[str, Any]:
  """Of one run: each search as it was chosen, what it scores, beside greedy."""
  dev = parts.split(parts.config.data.dev_split)
  test = parts.split(parts.config.data.test_split)
  _check_unread(test)
  rows: dict[str, Any] = {}
  heard: dict[str, statistics.Scores] = {}
  for name, grid in _grids().items():
    tuned = {
      search: _wer(_scores(parts, trained, dev, search)) for search in grid
    }
    chosen = min(grid, key=tuned.__getitem__)
    heard[name] = _scores(parts, trained, test, chosen)
    config = EvalConfig()
    row = statistics.rate(heard[name], config=config)._asdict()
    for other in (GREEDY, LONGER):
      if other in heard and other != name:
        beside = statistics.compare(heard[name], heard[other], config=config)
        row[f"less_{other}"] = beside.difference._asdict()
    rows[name] = {
      **row,
      "decoder": parts.backbone.config.decoder.kind,
      "search": dataclasses.asdict(
        dataclasses.replace(chosen, language_model="")
      ),
      "dev": tuned[chosen],
    }
  return rows


def _grids() -> dict[str, list[SearchConfig]]:
  beam = _BEAM.value
  return {
    GREEDY: [SearchConfig()],
    BEAM: [SearchConfig(beam=beam)],
    LONGER: [SearchConfig(beam=beam, length_bonus=bonus) for bonus in BONUSES],
    FUSED: [
      SearchConfig(
        beam=beam,
        language_model=_LANGUAGE_MODEL.value,
        language_model_weight=weight,
        length_bonus=bonus,
      )
      for weight, bonus in itertools.product(WEIGHTS, BONUSES)
    ],
  }


def _scores(
  parts: Parts, trained: TrainState, split: Split, search: SearchConfig
) -> statistics.Scores:
  """Of the adapted model, utterance by utterance."""
  texts = scoring.texts(parts, trained, split, search=search, adapted=True)
  normalize = normalizer(parts.config.evaluate.normalizer)
  edits = metrics.count_edits(
    [normalize(text) for text in split.texts],
    [normalize(texts[index]) for index in range(len(split))],
  )
  return statistics.scores(
    split.tasks, utterances=split.ids, errors=edits.errors, words=edits.length
  )


def _wer(scores: statistics.Scores) -> float:
  return float(scores.errors.sum() / scores.words.sum())


def _check_unread(test: Split) -> None:
  """That the language model has not read what it is tested on.

  Raises:
    InputError: it has.
  """
  folder = epath.Path(_LANGUAGE_MODEL.value).parent
  config = claim.config_of(claim.read(folder), folder / "config.json")
  if config.sentences.text:
    read = set(epath.Path(config.sentences.text).read_text().splitlines())
  else:
    read = set(open_split(config.data.path, config.data.train_split).texts)
  both = read.intersection(test.texts)
  if both:
    raise InputError(
      "--language_model",
      expected="one that has read no sentence of the test split",
      got=f"{len(both)} that it has, {min(both)!r} first",
    )


def _markdown(about: dict[str, str], runs: dict[str, Any]) -> str:
  lines = [
    results.title(
      about,
      note=f"beam {_BEAM.value}; WER on test in per cent, adapted; intervals of "
      "95%, paired by utterance.",
    ),
    "",
    "| run | decoder | search | language model | bonus | WER dev | WER test | less "
    "greedy | less beam, bonus |",
    "|---|---|---|---|---|---|---|---|---|",
  ]
  for name, rows in runs.items():
    for search, row in rows.items():
      told = row["search"]
      weight = told["language_model_weight"] if search == FUSED else ""
      lines.append(
        f"| {name} | {row['decoder']} | {search} | {weight} | "
        f"{told['length_bonus'] if told['beam'] else ''} | "
        f"{100 * row['dev']:.1f} | {_told(row)} | "
        f"{_told(row.get(f'less_{GREEDY}'))} | {_told(row.get(f'less_{LONGER}'))} |"
      )
  return "\n".join([*lines, ""])


def _told(rate: dict[str, float] | None) -> str:
  if rate is None:
    return ""
  wer, low, high = (100 * rate[key] for key in ("wer", "low", "high"))
  return f"{wer:.1f} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
  app.run(main)

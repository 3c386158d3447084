"""Greedy search, a beam, and a beam with a language model, beside one another.

    hra train --config=experiments/tiny_rnnt.py --workdir=runs/tiny_rnnt
    hra train --config=experiments/quickstart.py --workdir=runs/rnnt_speakers \\
      --config.backbone_path=runs/tiny_rnnt/backbone
    hra train --config=experiments/tiny_lm.py --workdir=runs/lm \\
      --config.backbone_path=runs/tiny_rnnt/backbone \\
      --config.data.path=runs/tiny_rnnt/data/prepared
    python benchmarks/decoding.py --runs=runs/rnnt_speakers --language_model=runs/lm/lm

Runs that adapt a backbone to synthetic speakers, each heard by its speakers' own
Submodels, in more sentences than they were trained with: dev and test have those of
the runs and as many again several times, made in the folder `decoding` of each run.
What a search has to choose, among the grids below, is chosen on dev; test is heard once
for each search that was chosen. No sentence of test stands among those that the language
model has read; the command refuses if one does. Intervals are of 95%, over speakers and
their utterances, paired. Writes docs/decoding.json and docs/decoding.md.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import results
import study_statistics as statistics
import tqdm
from absl import app, flags, logging
from etils import epath

from hra import claim, run, run_data, scoring
from hra.commands import process
from hra.config import EvalConfig, SearchConfig
from hra.data.dataset import Split, open_split
from hra.errors import InputError
from hra.run import Parts
from hra.train.state import TrainState

_OUT = results.define_out()
_RUNS = flags.DEFINE_list("runs", [], "Folders of runs that adapted.")
_LANGUAGE_MODEL = flags.DEFINE_string("language_model", "", "A folder lm.")
_BEAM = flags.DEFINE_integer("beam", 8, "Hypotheses.")

GREEDY, BEAM = "greedy", "beam"
LENGTH, FUSED = "beam, length", "beam, length, language model"
DEV, TEST = 30, 80
"""Sentences of each speaker."""
NORMALIZATIONS = (0.0, 0.5, 1.0)
COVERAGES = (0.0, 0.2)
WEIGHTS = (0.2, 0.4, 0.6, 0.8, 1.2)
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
  """Of one run: each search as it was chosen, what it scores, beside the others."""
  data = _more(parts)
  dev = open_split(data, parts.config.data.dev_split)
  test = open_split(data, parts.config.data.test_split)
  _check_unread(test)
  rows: dict[str, Any] = {}
  heard: dict[str, statistics.Scores] = {}
  chosen = SearchConfig()
  for name in (GREEDY, BEAM, LENGTH, FUSED):
    grid = _grid(name, chosen, las=parts.backbone.config.decoder.kind == "las")
    tuned = [
      _wer(_scores(parts, trained, dev, search))
      for search in tqdm.tqdm(grid, f"{parts.workdir.name}: {name}")
    ]
    chosen = grid[tuned.index(min(tuned))]
    heard[name] = _scores(parts, trained, test, chosen)
    config = EvalConfig()
    row = statistics.rate(heard[name], config=config)._asdict()
    for other in (GREEDY, LENGTH):
      if other in heard and other != name:
        beside = statistics.compare(heard[name], heard[other], config=config)
        row[f"less_{other}"] = beside.difference._asdict()
    rows[name] = {
      **row,
      "decoder": parts.backbone.config.decoder.kind,
      "search": dataclasses.asdict(
        dataclasses.replace(chosen, language_model="")
      ),
      "dev": min(tuned),
      "utterances": len(test),
    }
  return rows


def _more(parts: Parts) -> str:
  """The prepared folder of a run's speakers with the sentences that are asked for.

  Raises:
    InputError: the speakers are not synthetic.
  """
  spec = parts.config.synthetic
  spoken = epath.Path(parts.config.data.path).parent / "corpus"
  if not spoken.exists():
    raise InputError(
      "--runs",
      expected="runs that made their speakers",
      got=f"no {spoken}",
      fix="such as the quickstart's",
    )
  asked = dataclasses.replace(
    parts.config,
    synthetic=dataclasses.replace(
      spec, train_utterances=1, dev_utterances=DEV, test_utterances=TEST
    ),
    data=dataclasses.replace(
      parts.config.data,
      source="synthetic",
      path=str(parts.workdir / "decoding"),
    ),
  )
  return run_data.with_data(asked, parts.workdir).data.path


def _grid(name: str, best: SearchConfig, *, las: bool) -> list[SearchConfig]:
  """What one search is chosen among.

  Args:
    best: of the search before.
    las: whether frames are attended to, and can be covered.
  """
  if name == GREEDY:
    return [SearchConfig()]
  if name == BEAM:
    return [SearchConfig(beam=_BEAM.value)]
  if name == LENGTH:
    coverages = COVERAGES if las else COVERAGES[:1]
    return [
      dataclasses.replace(
        best,
        length_normalization=power,
        length_bonus=bonus,
        coverage=coverage,
      )
      for power, bonus, coverage in itertools.product(
        NORMALIZATIONS, BONUSES, coverages
      )
    ]
  return [
    dataclasses.replace(
      best,
      language_model=_LANGUAGE_MODEL.value,
      language_model_weight=weight,
      length_bonus=bonus,
    )
    for weight, bonus in itertools.product(WEIGHTS, BONUSES)
  ]


def _scores(
  parts: Parts, trained: TrainState, split: Split, search: SearchConfig
) -> statistics.Scores:
  """Of the adapted model, utterance by utterance."""
  texts = scoring.texts(parts, trained, split, search=search, adapted=True)
  return statistics.of_texts(
    split.tasks,
    utterances=split.ids,
    references=split.texts,
    heard=[texts[index] for index in range(len(split))],
    normalization=parts.config.evaluate.normalizer,
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
      note=f"beam {_BEAM.value}; WER in per cent, adapted, of {DEV} (dev) and {TEST} "
      "(test) sentences of each speaker; intervals of 95%, paired by utterance.",
    ),
    "",
    "| run | decoder | search | normalization | coverage | bonus | language model | "
    "WER dev | WER test | less greedy | less beam, length |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
  ]
  for name, rows in runs.items():
    for search, row in rows.items():
      told = row["search"]
      terms = ["length_normalization", "coverage", "length_bonus"]
      weights = [told[term] if told["beam"] else "" for term in terms]
      weights.append(told["language_model_weight"] if search == FUSED else "")
      cells = [
        *(name, row["decoder"], search, *weights, f"{100 * row['dev']:.1f}"),
        statistics.told(row),
        *(
          statistics.told(row[less]) if less in row else ""
          for less in (f"less_{GREEDY}", f"less_{LENGTH}")
        ),
      ]
      lines.append(f"| {' | '.join(map(str, cells))} |")
  return "\n".join([*lines, ""])


if __name__ == "__main__":
  app.run(main)

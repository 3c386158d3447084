"""What each augmentation is worth, on clean and on noisy test speech.

    hra sweep --config=experiments/augmentation.py --workdir=runs/augmentation --jobs=2
    python benchmarks/augmentation.py --sweep=runs/augmentation

Hears the test split of every run of that sweep as it is and in three disturbed copies:
with coloured noise 10 dB below the speech, as training's; with babble, six voices of
another seed at once, 10 dB below, which no training heard; in simulated rooms of which
training heard none. A copy disturbs an utterance in the same way for all arms. Intervals
are of 95%, over voices and their utterances; differences are paired. Writes
docs/augmentation.json, .md and .png.
"""

import json
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import results
import study_plots as plots
import study_statistics as statistics
import tqdm
from absl import app, flags, logging
from etils import epath

from hra import run, scoring
from hra.commands import configs, process
from hra.config import (
  DataConfig,
  EvalConfig,
  MultistyleConfig,
  RoomsConfig,
  SearchConfig,
)
from hra.data import perturb, sounds
from hra.data.dataset import Example, Split, open_split
from hra.dims import SAMPLE_RATE
from hra.errors import InputError
from hra.keys import host_rng
from hra.run import Parts

_EXPERIMENT = configs.load_module(
  str(epath.Path(__file__).parents[1] / "experiments" / "augmentation.py")
)
ARMS = {
  "none": "none",
  "fixed": "SpecAugment, fixed",
  "adaptive": "SpecAugment, adaptive",
  "mtr": "MTR",
  "both": "SpecAugment on MTR",
  "mix": "the mix, 8:2",
}
PAIRS = (
  ("adaptive", "fixed"),
  ("both", "mtr"),
  ("mix", "adaptive"),
  ("mix", "mtr"),
  ("mix", "both"),
)
CLEAN, DISTURBED = "clean", "disturbed"
SNR = 10.0
VOICES, STRETCHES, SECONDS = 6, 20, 6
"""Of babble: voices at once, recordings of it, and how long each is."""

CONDITIONS: dict[str, dict[str, Any]] = {
  "noise": {"noise": "coloured"},
  "babble": {"noise": "files"},
  "rooms": {"reverb": "rooms", "rooms": RoomsConfig(count=40, seed=1)},
}


class Disturbed(Split):
  """A split whose recordings are heard in noise or in rooms."""

  def __init__(self, split: Split, name: str, *, babble: sounds.Bank):
    self.__setstate__(split.__getstate__())
    multistyle = MultistyleConfig(
      part=1.0, snr_low=SNR, snr_high=SNR, **CONDITIONS[name]
    )
    self._config = DataConfig(multistyle=multistyle)
    self._condition = name
    if name == "babble":
      self._sounds = sounds.Sounds(noise=babble)
    else:
      self._sounds = sounds.opened(multistyle)

  def __getitem__(self, index: SupportsIndex) -> Example:
    """Reads and disturbs one utterance, the same way each time."""
    example = super().__getitem__(operator.index(index))
    heard = perturb.perturb(
      example.wave_S,
      rng=host_rng(0, "disturbed", self._condition, example.id),
      config=self._config,
      part=1.0,
      sounds=self._sounds,
      max_samples=len(example.wave_S),
    )
    return example._replace(wave_S=heard.wave_S)


class Heard(NamedTuple):
  """Word errors of all runs: arm -> condition -> scores of all seeds."""

  scores: dict[str, dict[str, statistics.Scores]]
  seeds: dict[str, dict[str, list[float]]]
  """Likewise the WER of each seed."""


def define_flags() -> None:
  """Defines the script's flags; who imports this file has other ones."""
  results.define_out()
  flags.DEFINE_string("sweep", "", "The sweep's folder.")


def main(argv: Sequence[str]) -> None:
  del argv
  given = flags.FLAGS
  logging.set_verbosity(logging.FATAL)
  process.set_up()
  heard = _hear(epath.Path(given.sweep), seeds=_EXPERIMENT.SEEDS)
  about = results.about("augmentation")
  found = figures(heard)
  results.write(
    "augmentation",
    figures={**about, **found},
    markdown=_markdown(about, found),
    out=given.out,
  )
  plots.wer_by_condition(
    {
      condition: {
        ARMS[arm]: rates[condition] for arm, rates in found["arms"].items()
      }
      for condition in (CLEAN, *CONDITIONS)
    },
    path=epath.Path(given.out) / "augmentation.png",
  )


def figures(heard: Heard) -> dict[str, Any]:
  """WER of each arm by condition, its difference from no augmentation, and pairs."""
  config = EvalConfig()
  arms: dict[str, Any] = {}
  for arm, scores in heard.scores.items():
    arms[arm] = {}
    for condition, own in scores.items():
      row = statistics.rate(own, config=config)._asdict()
      row["seeds"] = heard.seeds[arm][condition]
      if arm != "none":
        row["less_none"] = _less(heard, arm, "none", condition)
      arms[arm][condition] = row
  pairs = [
    {
      "arm": arm,
      "other": other,
      **{
        condition: _less(heard, arm, other, condition)
        for condition in heard.scores[arm]
      },
    }
    for arm, other in PAIRS
  ]
  return {"arms": arms, "pairs": pairs}


def _less(
  heard: Heard, arm: str, other: str, condition: str
) -> dict[str, float]:
  compared = statistics.compare(
    heard.scores[arm][condition],
    heard.scores[other][condition],
    config=EvalConfig(),
  )
  return compared.difference._asdict()


def _hear(sweep: epath.Path, *, seeds: Sequence[int]) -> Heard:
  """Every arm with every seed.

  Raises:
    InputError: a run is not there, or not trained.
  """
  scores: dict[str, dict[str, list[statistics.Scores]]] = {}
  bar = tqdm.tqdm(total=len(ARMS) * len(seeds) * (1 + len(CONDITIONS)))
  for seed in seeds:
    babble = _babble(sweep, seeds[(seeds.index(seed) + 1) % len(seeds)])
    for arm in ARMS:
      folder = sweep / f"{arm}-{seed}"
      parts = run.reopen(folder)
      trained = run.trained_state(parts)
      test = parts.split(parts.config.data.test_split)
      splits = {CLEAN: test} | {
        name: Disturbed(test, name, babble=babble) for name in CONDITIONS
      }
      for name, split in splits.items():
        bar.set_description(f"{folder.name}: {name}")
        texts = scoring.texts(
          parts, trained, split, search=SearchConfig(), adapted=True
        )
        own = _scores(parts, split, texts, seed=seed)
        scores.setdefault(arm, {}).setdefault(name, []).append(own)
        bar.update()
  bar.close()
  return joined(scores)


def joined(
  scores: Mapping[str, Mapping[str, list[statistics.Scores]]],
) -> Heard:
  """All seeds as one, and all disturbed copies as one more condition."""
  whole: dict[str, dict[str, statistics.Scores]] = {}
  rates: dict[str, dict[str, list[float]]] = {}
  for arm, by_condition in scores.items():
    by_seed = dict(by_condition)
    by_seed[DISTURBED] = [
      statistics.joined([_named(each, name) for name, each in copies.items()])
      for copies in (
        {name: by_condition[name][place] for name in CONDITIONS}
        for place in range(len(by_condition[CLEAN]))
      )
    ]
    whole[arm] = {
      name: statistics.joined(each) for name, each in by_seed.items()
    }
    rates[arm] = {
      name: [float(one.errors.sum() / one.words.sum()) for one in each]
      for name, each in by_seed.items()
    }
  return Heard(whole, rates)


def _named(scores: statistics.Scores, condition: str) -> statistics.Scores:
  """With utterances that can stand beside those of other conditions."""
  names = [f"{condition}/{name}" for name in scores.utterances]
  return scores._replace(utterances=np.array(names, dtype=object))


def _scores(
  parts: Parts, split: Split, texts: Mapping[int, str], *, seed: int
) -> statistics.Scores:
  return statistics.of_texts(
    [f"{seed}/{task}" for task in split.tasks],
    utterances=split.ids,
    references=split.texts,
    heard=[texts[index] for index in range(len(split))],
    normalization=parts.config.evaluate.normalizer,
  )


def _babble(sweep: epath.Path, seed: int) -> sounds.Bank:
  """Recordings of several voices at once, of what a seed's runs train on.

  Raises:
    InputError: the runs are not there.
  """
  path = sweep / f"none-{seed}" / "config.json"
  if not path.exists():
    raise InputError(
      path,
      expected="runs of experiments/augmentation.py",
      got="none",
      fix="hra sweep --config=experiments/augmentation.py --workdir=...",
    )
  data = json.loads(path.read_text())["config"]["data"]["path"]
  split = open_split(data, "train")
  rng = host_rng(seed, "babble")
  samples = SECONDS * SAMPLE_RATE
  stretches = []
  for _ in range(STRETCHES):
    chosen = rng.choice(len(split), VOICES, replace=False)
    voices = [
      perturb.stretch(split[int(i)].wave_S, samples=samples, at=rng.random())
      for i in chosen
    ]
    loud = [voice / np.sqrt(np.mean(voice**2)) for voice in voices]
    stretches.append(np.sum(loud, axis=0, dtype=np.float32))
  ends = tuple(samples * (place + 1) for place in range(STRETCHES))
  return sounds.Bank(np.concatenate(stretches), ends, "")


def _markdown(about: dict[str, str], found: dict[str, Any]) -> str:
  conditions = (CLEAN, *CONDITIONS, DISTURBED)
  lines = [
    results.title(
      about,
      note=f"WER in per cent of {len(_EXPERIMENT.SEEDS)} seeds together; intervals of "
      "95%, over voices and utterances; noise and babble at "
      f"{SNR:.0f} dB; `{DISTURBED}` is all three copies.",
    ),
    "",
    f"| | {' | '.join(conditions)} |",
    "|---" * (1 + len(conditions)) + "|",
  ]
  for arm, rates in found["arms"].items():
    cells = [statistics.told(rates[condition]) for condition in conditions]
    lines.append(f"| {ARMS[arm]} | {' | '.join(cells)} |")
  lines += [
    "",
    "One less the other, paired; below 0 the first is better:",
    "",
    f"| | {' | '.join(conditions)} |",
    "|---" * (1 + len(conditions)) + "|",
  ]
  for arm, rates in found["arms"].items():
    if arm != "none":
      cells = [
        statistics.told(rates[condition]["less_none"])
        for condition in conditions
      ]
      lines.append(f"| {ARMS[arm]} less none | {' | '.join(cells)} |")
  for pair in found["pairs"]:
    cells = [statistics.told(pair[condition]) for condition in conditions]
    lines.append(
      f"| {ARMS[pair['arm']]} less {ARMS[pair['other']]} | {' | '.join(cells)} |"
    )
  seeds = [
    f"{ARMS[arm]} {', '.join(f'{100 * wer:.1f}' for wer in rates[DISTURBED]['seeds'])}"
    for arm, rates in found["arms"].items()
  ]
  lines += ["", f"By seed, `{DISTURBED}`: {'; '.join(seeds)}."]
  lines += ["", "![WER by condition](augmentation.png)"]
  return "\n".join([*lines, ""])


if __name__ == "__main__":
  define_flags()
  app.run(main)

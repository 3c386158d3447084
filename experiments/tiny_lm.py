"""A small language model of the bundled backbone's characters.

    hra train --config=experiments/tiny_lm.py --workdir=runs/lm \\
      --config.data.path=data/mine
    hra evaluate --workdir=runs/mine --beam=8 --language_model=runs/lm/lm

reads the transcripts that data/mine trains on; `--config.sentences.text=FILE` reads a
sentence a line instead. experiments/language_model.py is larger.
"""

from hra.config import (
  Config,
  LanguageModelConfig,
  OptimizerConfig,
  SentencesConfig,
  TrainConfig,
)


def get_config() -> Config:
  return Config(
    name="tiny_lm",
    language_model=LanguageModelConfig(width=128, layers=1, embedding=32),
    sentences=SentencesConfig(sentences_per_batch=32, buckets=2),
    train=TrainConfig(
      mode="language_model",
      steps=1000,
      log_every=100,
      eval_every=250,
      shared=OptimizerConfig(learning_rate=5e-3, warmup_steps=50),
    ),
  )

"""The language model that experiments/librispeech_las.py is fused with.

    curl -L --create-dirs -o data/librispeech-lm-norm.txt.gz \\
      https://www.openslr.org/resources/11/librispeech-lm-norm.txt.gz
    hra train --config=experiments/librispeech_lm.py --workdir=runs/lm

LSTM layers over the recogniser's word pieces (data/librispeech, made as
experiments/librispeech_las.py says), on the 800 million words that come with LibriSpeech:
books without those of its test sets. Text is normalised as transcripts are: capitals and
the archive may stay as they are.
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
    name="librispeech_lm",
    tokenizer="data/librispeech/tokenizer.model",
    language_model=LanguageModelConfig(kind="lstm", layers=3, width=2048),
    sentences=SentencesConfig(
      text="data/librispeech-lm-norm.txt.gz", sentences_per_batch=512
    ),
    train=TrainConfig(
      mode="language_model",
      steps=400_000,
      log_every=100,
      save_seconds=600.0,
      shared=OptimizerConfig(learning_rate=1e-3, warmup_steps=2_000),
    ),
  )

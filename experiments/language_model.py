"""A language model of a backbone's labels, for shallow fusion.

    hra train --config=experiments/language_model.py --workdir=runs/lm \\
      --config.sentences.text=text.txt --config.sentences.dev_text=dev.txt

reads a sentence a line, and leaves the model in `runs/lm/lm`. Without `sentences.text`
it reads the transcripts of `--config.data.path`. `--config.backbone_path` names the
backbone whose tokenizer it is for.
"""

from hra.config import Config, OptimizerConfig, TrainConfig


def get_config() -> Config:
  return Config(
    name="language_model",
    train=TrainConfig(
      mode="language_model",
      steps=20_000,
      log_every=100,
      eval_every=1000,
      shared=OptimizerConfig(learning_rate=1e-3, warmup_steps=500),
    ),
  )

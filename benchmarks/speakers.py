"""A few synthesised speakers of the quickstart, prepared, for benchmarks."""

from etils import epath

from hra import run
from hra.commands import configs
from hra.config import Config


def quickstart(folder: epath.PathLike) -> Config:
  """The quickstart's configuration, on 8 speakers x 24 recordings in the folder.

  What is there already isn't made again.
  """
  config = configs.load(configs.experiment("quickstart"))
  spec = config.synthetic
  spec.speakers, spec.train_utterances = 8, 24
  spec.dev_utterances = spec.test_utterances = 2
  config.data.path = str(epath.Path(folder) / "data")
  return run.with_data(config, epath.Path(folder))

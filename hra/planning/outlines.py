"""A backbone's name or folder -> its shape; no parameter is read."""

from typing import NamedTuple

from hra import config_tree
from hra.backbone import store
from hra.backbone.foreign import checkpoint, published
from hra.backbone.identity import computed_as
from hra.config import BackboneConfig, Config, FrontendConfig
from hra.data.tokenizer import Tokenizer
from hra.errors import InputError
from hra.files import read_json


class Outline(NamedTuple):
  """A backbone without its numbers."""

  name: str
  config: BackboneConfig
  frontend: FrontendConfig


def of_config(config: Config, *, name: str = "") -> Outline:
  """The backbone of an experiment, computed and kept as that says.

  Args:
    name: a published checkpoint, a backbone's folder or a checkpoint's, or a
      bundled backbone, in place of the configuration's.

  Without any name, it is the one that `config.backbone` describes.

  Raises:
    InputError: there is none of that name; a backbone that is only described has no
      number of labels.
  """
  if config.train.mode == "pretrain" and config.train.start == "random":
    if name:
      raise InputError(
        "--backbone",
        expected="none where pretraining makes one (config.train.start 'random')",
        got=name,
      )
    return _fresh(config)
  name = name or config.backbone_path
  if not name:
    return _fresh(config)
  found, frontend = _found(name)
  return Outline(name, computed_as(found, config.backbone), frontend)


def _found(name: str) -> tuple[BackboneConfig, FrontendConfig]:
  if name in published.PUBLISHED:
    return published.outline(name)
  path = store.folder_of(name) / "config.json"
  if not path.is_file():
    known = [*published.PUBLISHED, *store.BUNDLED]
    raise InputError(
      f"--backbone={name}",
      expected=f"a backbone's folder, or one of {', '.join(known)}",
      got="neither",
      fix=f"did you mean {config_tree.nearest(name, known)!r}? The configuration's "
      "backbone_path is asked for where the flag is not given",
    )
  if "architectures" in read_json(path, keys=()):
    read = checkpoint.read(name)
    return read.config, read.frontend
  return store.outline(name)


def _fresh(config: Config) -> Outline:
  """As `hra.run` makes it, without a number drawn."""
  vocabulary = config.backbone.vocabulary
  path = config.tokenizer or config.data.path
  if not vocabulary and path:
    vocabulary = Tokenizer.load(path).vocabulary
  if not vocabulary:
    raise InputError(
      "config.backbone.vocabulary",
      expected="a number of labels, the blank included",
      got="0, and no data whose tokenizer has one",
      fix="such as --config.backbone.vocabulary=1024",
    )
  backbone = config_tree.replaced(config.backbone, "vocabulary", vocabulary)
  return Outline("a new backbone", backbone, config.features)

"""A checkpoint's folder -> a backbone's folder.

Memory holds one tensor at a time: parameters are read, made ours and written layer
by layer.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from hra.backbone import store
from hra.backbone.foreign import checkpoint
from hra.backbone.foreign.checkpoint import Checkpoint
from hra.backbone.prompted import prompted
from hra.config import BackboneConfig, FrontendConfig
from hra.data.tokenizer import SETTINGS_FILE, Tokenizer
from hra.errors import InputError
from hra.sharding import named_leaves


class Converted(NamedTuple):
  """What was made."""

  architecture: str
  config: BackboneConfig
  frontend: FrontendConfig
  parameters: int
  labels: str
  """How its labels come of the original's ids."""
  fingerprint: str


def convert(
  source: str,
  out: epath.PathLike,
  *,
  param_dtype: str = "float32",
  language: str = "",
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> Converted:
  """Makes a backbone's folder; config.json comes last.

  Args:
    source: a local folder as transformers saves it, with safetensors.
    out: a new folder, or what an interrupted conversion left.
    param_dtype: of the parameters that are written.
    language: that a decoder of several is prompted for; empty is English.
    progress: is told how many of all numbers are written.

  Raises:
    InputError: the checkpoint can't be converted; `out` holds a backbone.
    StorageError: `out` can't be written to.
  """
  out = epath.Path(out)
  if (out / "config.json").exists():
    raise InputError(
      out,
      expected="a new folder",
      got="one with a config.json",
      fix="name another, or remove it if no Submodel needs it",
    )
  found = checkpoint.read(source, param_dtype=param_dtype)
  tokenizer = _tokenizer(found)
  config = prompted(found.config, tokenizer, language=language)
  shapes = dict(named_leaves(store.abstract(config, found.frontend)))
  parameters = sum(int(np.prod(leaf.shape)) for leaf in shapes.values())
  about = _about(found)
  written = 0

  def parts(path: str) -> Iterator[np.ndarray]:
    nonlocal written
    for part in found.parts(path):
      yield part
      written += part.size
      progress(written, parameters)

  fingerprint = store.save_streamed(
    out,
    config,
    parts=parts,
    frontend=found.frontend,
    tokenizer=tokenizer,
    about=about,
  )
  return Converted(
    found.architecture,
    config,
    found.frontend,
    parameters,
    about["labels"],
    fingerprint,
  )


def _about(found: Checkpoint) -> dict[str, Any]:
  """Where it comes from, and what of it stands elsewhere now."""
  blank, most = found.translated.blank, found.config.vocabulary
  spells = found.config.decoder.kind == "transformer"
  name = "the end of a sentence" if spells else "the blank"
  labels = f"labels are the original's ids, of which 0 is {name}"
  if blank:
    labels = f"label 0, {name}, is the original's id {blank}; labels 1 to "
    labels += f"{blank} are its ids 0 to {blank - 1}"
  if 0 < blank < most - 1:
    labels += "; others are the same"
  return {
    "converted_from": found.architecture,
    "blank": blank,
    "labels": labels,
  }


def _tokenizer(found: Checkpoint) -> Tokenizer:
  """The checkpoint's own.

  Raises:
    InputError: it isn't there, or doesn't fit the model's labels.
  """
  source, name = found.source, checkpoint.FAMILIES[found.architecture].tokenizer
  path = source.folder / name
  source.bytes(SETTINGS_FILE, fix="download the tokenizer's files too")
  tokenizer = Tokenizer.load(path)
  config = found.config
  if tokenizer.vocabulary != config.vocabulary:
    raise InputError(
      path,
      expected=f"a tokenizer of the model's {config.vocabulary} labels",
      got=f"one of {tokenizer.vocabulary}",
      fix="bring the tokenizer that the checkpoint was trained with",
    )
  if tokenizer.blank != found.translated.blank:
    raise InputError(
      f"{source.folder / SETTINGS_FILE}: {found.translated.token_named}",
      expected=f"the token of id {found.translated.blank}, as the model's "
      f"{found.translated.blank_named}",
      got=f"that of id {tokenizer.blank}",
      fix="bring the tokenizer that the checkpoint was trained with",
    )
  return tokenizer

"""Whether a Submodel is one of a backbone: its hash, its tokenizer, every shape."""

from hra.adapters import families
from hra.adapters.interface import check_trees
from hra.backbone.store import StoredBackbone
from hra.errors import InputError
from hra.submodels.file import Submodel


def check(submodel: Submodel, backbone: StoredBackbone) -> None:
  """Whether the backbone is the one that a Submodel was made for.

  Raises:
    InputError: it is another; or the row or the shared parameters are none of the
      family that the Submodel names.
  """
  where = f"Submodel of task {submodel.task!r}"
  if submodel.backbone_fingerprint != backbone.fingerprint:
    raise InputError(
      where,
      expected=f"one made for backbone {backbone.fingerprint}",
      got=submodel.backbone_fingerprint,
      fix="load the backbone that it was trained on",
    )
  if submodel.tokenizer not in ("", backbone.tokenizer.hash):
    raise InputError(
      where,
      expected=f"one made for the tokenizer of hash {backbone.tokenizer.hash}",
      got=submodel.tokenizer,
      fix="load the backbone with the tokenizer that it was trained with",
    )
  adapter = families.build(
    submodel.adapter, backbone.config, mels=backbone.frontend.width
  )
  check_trees(adapter, submodel.row, submodel.shared, where=where)

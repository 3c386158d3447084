"""Small random models of transformers, in folders as it saves them."""

import dataclasses
import functools
import json
import pathlib

import numpy as np
import pytest

from hra.backbone import store
from hra.backbone.foreign import checkpoint
from hra.config import AdapterConfig
from hra.model import Model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

MELS, VOCABULARY = 16, 8
_CONFORMER = {
  "hidden_size": 16,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
  "intermediate_size": 32,
}
_ENCODER = {
  **_CONFORMER,
  "subsampling_conv_channels": 8,
  "num_mel_bins": MELS,
}


@dataclasses.dataclass(frozen=True)
class Kind:
  """What is made of a family."""

  config: str
  model: str
  extractor: str
  nested: bool = True
  fields: tuple[tuple[str, object], ...] = ()
  encoder: tuple[tuple[str, object], ...] = ()
  extracted: tuple[tuple[str, object], ...] = (("feature_size", MELS),)
  stack: int = 1


KINDS = {
  "lasr": Kind(
    "LasrCTCConfig",
    "LasrForCTC",
    "LasrFeatureExtractor",
    encoder=(*_ENCODER.items(), ("conv_kernel_size", 4)),
  ),
  "parakeet": Kind(
    "ParakeetCTCConfig",
    "ParakeetForCTC",
    "ParakeetFeatureExtractor",
    fields=(("pad_token_id", VOCABULARY - 1),),
    encoder=(*_ENCODER.items(), ("conv_kernel_size", 5)),
  ),
  "w2v_bert": Kind(
    "Wav2Vec2BertConfig",
    "Wav2Vec2BertForCTC",
    "SeamlessM4TFeatureExtractor",
    nested=False,
    fields=(("pad_token_id", 3),),
    encoder=(
      *_CONFORMER.items(),
      ("feature_projection_input_dim", 2 * MELS),
      ("conv_depthwise_kernel_size", 5),
      ("left_max_position_embeddings", 3),
      ("right_max_position_embeddings", 1),
    ),
    extracted=(("feature_size", MELS), ("num_mel_bins", MELS)),
    stack=2,
  ),
}


_TRANSDUCER = Kind(
  "ParakeetRNNTConfig",
  "ParakeetForRNNT",
  "ParakeetFeatureExtractor",
  fields=(
    ("pad_token_id", 2),
    ("blank_token_id", VOCABULARY - 1),
    ("decoder_hidden_size", 12),
    ("num_decoder_layers", 2),
    ("hidden_act", "relu"),
    ("max_symbols_per_step", 10),
  ),
  encoder=KINDS["parakeet"].encoder,
)
TRANSDUCERS = {
  "parakeet_rnnt": _TRANSDUCER,
  "parakeet_tdt": dataclasses.replace(
    _TRANSDUCER,
    config="ParakeetTDTConfig",
    model="ParakeetForTDT",
    fields=(*_TRANSDUCER.fields, ("durations", (0, 1, 2, 3, 4))),
  ),
}
"""Families whose decoder is one."""
ALL = KINDS | TRANSDUCERS


@functools.cache
def _made(family: str, changes: tuple[tuple[str, object], ...], seed: int):
  kind = ALL[family]
  fields = {"vocab_size": VOCABULARY, **dict(kind.fields)}
  encoder = dict(kind.encoder)
  for name, value in changes:
    (fields if name in fields else encoder)[name] = value
  fields |= {"encoder_config": encoder} if kind.nested else encoder
  config = getattr(transformers, kind.config)(**fields)
  torch.manual_seed(seed)
  model = getattr(transformers, kind.model)(config).eval()
  randomise(model, seed)
  return model


def model(family: str, *, seed: int = 0, **changes):
  """Of random numbers everywhere, and of logits with about unit variance."""
  changes = {
    name: tuple(value) if isinstance(value, list) else value
    for name, value in changes.items()
  }
  return _made(family, tuple(sorted(changes.items())), seed)


def randomise(model, seed: int) -> None:
  generator = torch.Generator().manual_seed(seed)

  def normal(like, mean, deviation):
    drawn = torch.randn(like.shape, generator=generator)
    return mean + deviation * drawn

  with torch.no_grad():
    statistics = [
      (name, leaf) for name, leaf in model.named_buffers() if "running" in name
    ]
    for name, leaf in [*model.named_parameters(), *statistics]:
      if name.endswith("running_var"):
        leaf.copy_(normal(leaf, 0, 0.5).exp())
      elif leaf.ndim >= 2 and "bias_" not in name:
        inputs = leaf[0].numel() if "distance" not in name else 4
        leaf.copy_(normal(leaf, 0, inputs**-0.5))
      elif "norm" in name and name.endswith("weight"):
        leaf.copy_(normal(leaf, 1, 0.2))
      else:
        leaf.copy_(normal(leaf, 0, 0.3))


def extractor(family: str):
  kind = ALL[family]
  return getattr(transformers, kind.extractor)(**dict(kind.extracted))


def tokenizer(family: str, folder: pathlib.Path, *, blank: int):
  """One of transformers with `VOCABULARY` tokens, its blank where that is."""
  pieces = ["\u2581", "a", "b", "\u2581a", "<unk>", "</s>", "c"]
  if family == "w2v_bert":
    names = ["|", "a", "b", "c", "'", "e", "[UNK]"]
    names.insert(blank, "[PAD]")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vocab.json"
    path.write_text(json.dumps({name: id for id, name in enumerate(names)}))
    return transformers.Wav2Vec2CTCTokenizer(
      str(path),
      pad_token="[PAD]",
      unk_token="[UNK]",
      bos_token=None,
      eos_token=None,
    )
  if family == "parakeet_tdt":
    pieces[5] = "<pad>"
    pieces.insert(blank, "<blank>")
    return _parakeet_tokenizer(pieces, "<pad>")
  pad = "<blank>" if family == "parakeet_rnnt" else "<pad>"
  pieces.insert(blank, pad)
  return _parakeet_tokenizer(pieces, pad, eos_token="</s>")


def _parakeet_tokenizer(pieces, pad, **marks):
  return transformers.ParakeetTokenizer(
    tokenizer_object=unigram(pieces),
    pad_token=pad,
    unk_token="<unk>",
    **marks,
  )


def unigram(pieces):
  tokenizers = pytest.importorskip("tokenizers")
  scores = [(piece, -float(place % 3)) for place, piece in enumerate(pieces)]
  model = tokenizers.models.Unigram(scores, unk_id=pieces.index("<unk>"))
  found = tokenizers.Tokenizer(model)
  found.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
  found.decoder = tokenizers.decoders.Metaspace()
  marks = ("<pad>", "<blank>", "<unk>", "</s>")
  found.add_special_tokens([mark for mark in marks if mark in pieces])
  return found


def save(folder: pathlib.Path, family: str, model) -> pathlib.Path:
  """The model, its feature extractor and a tokenizer that fits it."""
  model.save_pretrained(folder)
  extractor(family).save_pretrained(folder)
  tokenizer(family, folder, blank=blank(model)).save_pretrained(folder)
  return folder


def blank(model) -> int:
  """Their id of it."""
  config = model.config
  return getattr(config, "blank_token_id", config.pad_token_id)


def converted(folder: pathlib.Path):
  """(our backbone, the checkpoint that it was made of), without a folder of ours."""
  found = checkpoint.read(str(folder))
  shapes = store.abstract(found.config, found.frontend)
  tensors = {
    path: np.concatenate([np.asarray(part) for part in found.parts(path)])
    for path, _ in store.named_leaves(shapes)
  }
  backbone = store.from_tensors(
    tensors, found.config, found.frontend, where=str(folder)
  )
  return backbone, found


def features(family: str, lengths, *, seed: int = 1) -> np.ndarray:
  """[B, T, F] for B lengths, zero in the padding."""
  rng = np.random.default_rng(seed)
  mels = MELS * ALL[family].stack
  found = rng.standard_normal((len(lengths), max(lengths), mels))
  there_BT1 = (
    np.arange(max(lengths))[None, :, None] < np.array(lengths)[:, None, None]
  )
  return np.where(there_BT1, found, 0).astype(np.float32)


def ours(found) -> Model:
  """The bare model of a checkpoint."""
  from hra.adapters import families

  adapter = families.build(AdapterConfig(family="none"), found.config)
  return Model(adapter=adapter, frontend=found.frontend)


def edit_json(path: pathlib.Path, edit) -> None:
  told = json.loads(path.read_text())
  edit(told)
  path.write_text(json.dumps(told))

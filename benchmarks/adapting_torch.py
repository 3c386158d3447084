"""torch's steps of many speakers: PEFT one by one, and rows stacked in one pass.

Enters: the original of a converted backbone, LoRA folders of PEFT, waveforms. Leaves:
what is timed, and losses and gradients to compare. Features are those of the
original's own extractor. Nothing in here uses JAX.
"""

import copy
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import peft
import safetensors.torch
import tokenizers
import torch
import transformers
from torch.nn import functional

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."

Tensors = dict[str, torch.Tensor]


class Original(NamedTuple):
  """A model of transformers, as its folder holds it."""

  model: torch.nn.Module
  extractor: Any
  blank: int


class Spoken(NamedTuple):
  """A batch of K speakers x B recordings, all of them of one length."""

  wave_KBS: np.ndarray
  labels_KBU: torch.Tensor


def use_threads(count: int) -> None:
  """That each operation is divided among."""
  torch.set_num_threads(count)


def make(
  folder: pathlib.Path,
  *,
  width: int = 144,
  layers: int = 16,
  heads: int = 4,
  mels: int = 80,
  vocabulary: int = 1024,
) -> pathlib.Path:
  """Writes a LASR of random weights as transformers does, with its tokenizer."""
  torch.manual_seed(0)
  config = transformers.LasrCTCConfig(
    vocab_size=vocabulary,
    encoder_config={
      "hidden_size": width,
      "num_hidden_layers": layers,
      "num_attention_heads": heads,
      "intermediate_size": 4 * width,
      "num_mel_bins": mels,
    },
  )
  transformers.LasrForCTC(config).save_pretrained(folder)
  transformers.LasrFeatureExtractor(feature_size=mels).save_pretrained(folder)
  _tokenizer(vocabulary).save_pretrained(folder)
  return folder


def _tokenizer(vocabulary: int) -> Any:
  """One of made-up pieces, its padding first: the blank."""
  marks = ("<pad>", "<unk>", "</s>")
  pieces = [*marks, *(f"p{index}" for index in range(vocabulary - len(marks)))]
  made = tokenizers.Tokenizer(
    tokenizers.models.Unigram(
      [(piece, -float(place % 3)) for place, piece in enumerate(pieces)],
      unk_id=1,
    )
  )
  made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
  made.decoder = tokenizers.decoders.Metaspace()
  made.add_special_tokens(list(marks))
  return transformers.ParakeetTokenizer(
    tokenizer_object=made,
    pad_token=marks[0],
    unk_token=marks[1],
    eos_token=marks[2],
  )


def load(folder: pathlib.Path) -> Original:
  """The frozen model of a folder, without dropout and with its own statistics."""
  model = transformers.AutoModelForCTC.from_pretrained(folder).eval()
  model.requires_grad_(False)
  extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
  return Original(model, extractor, model.config.pad_token_id)


def spoken(wave_KBS: np.ndarray, labels_KBU: np.ndarray) -> Spoken:
  return Spoken(wave_KBS, torch.tensor(labels_KBU, dtype=torch.long))


def loss_K(original: Original, model: Any, heard: Spoken) -> torch.Tensor:
  """Nats per label of each speaker."""
  speakers, recordings, places = heard.labels_KBU.shape
  waves = heard.wave_KBS.reshape(speakers * recordings, -1)
  features = original.extractor(
    list(waves),
    sampling_rate=original.extractor.sampling_rate,
    return_tensors="pt",
  ).input_features.to(next(model.parameters()).dtype)
  logits_BTV = model(input_features=features).logits
  count = len(logits_BTV)
  loss_B = functional.ctc_loss(
    logits_BTV.log_softmax(-1).transpose(0, 1),
    heard.labels_KBU.reshape(count, places),
    torch.full((count,), logits_BTV.shape[1]),
    torch.full((count,), places),
    blank=original.blank,
    reduction="none",
  )
  return loss_B.view(speakers, recordings).sum(1) / (recordings * places)


def speaker_name(index: int) -> str:
  """What PEFT calls the adapter of a folder by its place."""
  return f"speaker-{index}"


def opened(
  model: torch.nn.Module, folders: Sequence[pathlib.Path], *, trains: bool
) -> Any:
  """A copy of the model with all folders' adapters, by PEFT."""
  names = [speaker_name(index) for index in range(len(folders))]
  made = peft.PeftModel.from_pretrained(
    copy.deepcopy(model),
    str(folders[0]),
    adapter_name=names[0],
    is_trainable=trains,
  )
  for name, folder in zip(names[1:], folders[1:], strict=True):
    made.load_adapter(str(folder), adapter_name=name, is_trainable=trains)
  return made.eval()


def _adamw(tensors: Sequence[torch.Tensor], rate: float) -> torch.optim.AdamW:
  return torch.optim.AdamW(tensors, lr=rate, weight_decay=0.0, fused=True)


class OneByOne:
  """PEFT: one model that holds all adapters, and a step of each in its turn."""

  def __init__(
    self,
    original: Original,
    folders: Sequence[pathlib.Path],
    heard: Spoken,
    *,
    rate: float,
  ):
    self._original = original
    self._names = [speaker_name(index) for index in range(len(folders))]
    self._model = opened(original.model, folders, trains=True)
    self._own = [dict(self._tensors(name)) for name in self._names]
    self._optimizers = [_adamw(list(own.values()), rate) for own in self._own]
    self._heard = [
      Spoken(*(leaf[index : index + 1] for leaf in heard))
      for index in range(len(folders))
    ]

  def double(self) -> None:
    """Widens the adapters, too."""
    self._model.double()

  def _tensors(self, speaker: str) -> Iterator[tuple[str, torch.Tensor]]:
    """A speaker's, by their names in a folder."""
    for name, leaf in self._model.named_parameters():
      if f".{speaker}." in name:
        yield name.replace(f".{speaker}.", "."), leaf

  def _backward(self, index: int) -> float:
    self._model.set_adapter(self._names[index])
    self._optimizers[index].zero_grad()
    loss = loss_K(self._original, self._model, self._heard[index]).sum()
    loss.backward()
    return loss.item()

  def run(self) -> None:
    """A step of every speaker."""
    for index, optimizer in enumerate(self._optimizers):
      self._backward(index)
      optimizer.step()

  def gradients(self) -> tuple[np.ndarray, list[Tensors]]:
    """Each speaker's loss, and its gradients by their names in a folder."""
    losses = [self._backward(index) for index in range(len(self._own))]
    return np.asarray(losses), [
      {name: leaf.grad.clone() for name, leaf in own.items()}
      for own in self._own
    ]


def exact(
  original: Original, folders: Sequence[pathlib.Path], heard: Spoken
) -> OneByOne:
  """PEFT in 64 bits, to which all are held: float32 rounds for each otherwise."""
  model = copy.deepcopy(original.model).double()
  wide = original._replace(model=model)
  made = OneByOne(wide, folders, heard, rate=0.0)
  made.double()
  return made


class _StackedLinear(torch.nn.Module):
  """A projection with a LoRA of each speaker: two batched products."""

  def __init__(
    self,
    base: torch.nn.Module,
    a_KRI: torch.Tensor,
    b_KOR: torch.Tensor,
    scale: float,
  ):
    super().__init__()
    self.base, self.scale = base, scale
    self.lora_A = torch.nn.Parameter(a_KRI)
    self.lora_B = torch.nn.Parameter(b_KOR)

  def forward(self, input_BTI: torch.Tensor) -> torch.Tensor:
    output_BTO = self.base(input_BTI)
    flat_KNI = input_BTI.reshape(len(self.lora_A), -1, input_BTI.shape[-1])
    inner_KNR = torch.bmm(flat_KNI, self.lora_A.transpose(1, 2))
    update_KNO = torch.bmm(inner_KNR, self.lora_B.transpose(1, 2))
    return output_BTO + self.scale * update_KNO.view(output_BTO.shape)


class Stacked:
  """All speakers' rows as tensors [K, ...]: one pass and one update for them."""

  def __init__(
    self,
    original: Original,
    folders: Sequence[pathlib.Path],
    heard: Spoken,
    *,
    rate: float,
  ):
    self._original, self._heard = original, heard
    self._model = copy.deepcopy(original.model)
    self._layers = dict(stack(self._model, folders))
    self._optimizer = _adamw(
      [leaf for leaf in self._model.parameters() if leaf.requires_grad], rate
    )

  def _backward(self) -> torch.Tensor:
    self._optimizer.zero_grad()
    found_K = loss_K(self._original, self._model, self._heard)
    found_K.sum().backward()
    return found_K

  def run(self) -> None:
    """A step of every speaker."""
    self._backward()
    self._optimizer.step()

  def gradients(self) -> tuple[np.ndarray, list[Tensors]]:
    """As `OneByOne.gradients`."""
    losses = self._backward().detach().numpy()
    named = {
      f"{_PREFIX}{module}.{name}.weight": leaf.grad.clone()
      for module, layer in self._layers.items()
      for name, leaf in layer.named_parameters(recurse=False)
    }
    return losses, [
      {name: leaf[index].contiguous() for name, leaf in named.items()}
      for index in range(len(losses))
    ]


def stack(
  model: torch.nn.Module, folders: Sequence[pathlib.Path]
) -> Iterator[tuple[str, _StackedLinear]]:
  """Puts the folders' adapters in the place of projections, which are named."""
  told = json.loads((folders[0] / CONFIG_FILE).read_text())
  read = [safetensors.torch.load_file(path / WEIGHTS_FILE) for path in folders]
  modules = sorted(
    name.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
    for name in read[0]
    if name.endswith(".lora_A.weight")
  )
  for module in modules:
    parent, _, child = module.rpartition(".")
    a_KRI, b_KOR = (
      torch.stack([each[f"{_PREFIX}{module}.{part}.weight"] for each in read])
      for part in ("lora_A", "lora_B")
    )
    layer = _StackedLinear(
      model.get_submodule(module), a_KRI, b_KOR, told["lora_alpha"] / told["r"]
    )
    setattr(model.get_submodule(parent), child, layer)
    yield module, layer


PEFT = "PEFT, one by one"
"""The oracle."""
CONTESTANTS: Mapping[str, type[OneByOne] | type[Stacked]] = {
  PEFT: OneByOne,
  "stacked torch": Stacked,
}


def write(
  folder: pathlib.Path, tensors: Tensors, *, like: pathlib.Path
) -> None:
  """Writes tensors, such as gradients, as a folder that is like another."""
  folder.mkdir(parents=True)
  safetensors.torch.save_file(
    {name: leaf.contiguous() for name, leaf in tensors.items()},
    folder / WEIGHTS_FILE,
    metadata={"format": "pt"},
  )
  (folder / CONFIG_FILE).write_bytes((like / CONFIG_FILE).read_bytes())

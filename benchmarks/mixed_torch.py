"""torch's forward passes of a batch of many speakers' LoRAs, by PEFT and stacked.

Enters: the original of a converted backbone, LoRA folders of PEFT, features. Leaves:
frames or logits [B, T, D]. Nothing in here uses JAX.
"""

import contextlib
import copy
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import adapting_torch
import numpy as np
import peft
import tokenizers
import torch
import transformers

Forward = Callable[[], np.ndarray]

MELS = 80
MARKS = (
  *("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>"),
  *("<|transcribe|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"),
)


TIMES = 1501
"""Labels of times, which tokenizers don't list."""


def make_whisper(
  folder: pathlib.Path, *, seconds: int, **changes: int
) -> pathlib.Path:
  """Writes a Whisper of random weights whose encoder is Whisper tiny's.

  Its decoder, which nothing here runs, is one small layer; its positions end after
  `seconds`.
  """
  torch.manual_seed(0)
  alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  start = len(alphabet)
  fields = {
    "d_model": 384,
    "encoder_layers": 4,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "decoder_layers": 1,
    "decoder_attention_heads": 6,
    "decoder_ffn_dim": 64,
    **changes,
  }
  config = transformers.WhisperConfig(
    vocab_size=start + len(MARKS) + TIMES,
    num_mel_bins=MELS,
    max_source_positions=50 * seconds,
    max_target_positions=20,
    decoder_start_token_id=start + 1,
    eos_token_id=start,
    bos_token_id=start,
    pad_token_id=start,
    **fields,
  )
  model = transformers.WhisperForConditionalGeneration(config)
  model.generation_config = transformers.GenerationConfig(
    decoder_start_token_id=start + 1,
    eos_token_id=start,
    is_multilingual=True,
    lang_to_id={"<|en|>": start + 2},
    task_to_id={"translate": start + 3, "transcribe": start + 4},
    no_timestamps_token_id=start + len(MARKS) - 1,
  )
  model.save_pretrained(folder)
  transformers.WhisperFeatureExtractor(
    feature_size=MELS, chunk_length=seconds
  ).save_pretrained(folder)
  tokenizer = transformers.WhisperTokenizer(
    {name: id for id, name in enumerate(alphabet)}, [], pad_token=MARKS[0]
  )
  tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS)})
  tokenizer.save_pretrained(folder)
  return folder


def load(folder: pathlib.Path, *, frames: int) -> torch.nn.Module:
  """The frozen model of a folder, for features of so many frames."""
  if transformers.AutoConfig.from_pretrained(folder).model_type != "whisper":
    return adapting_torch.load(folder).model
  model = transformers.WhisperForConditionalGeneration.from_pretrained(folder)
  model = model.eval().requires_grad_(False)
  encoder = model.model.encoder
  table_TD = encoder.embed_positions.weight[: frames // 2].clone()
  encoder.embed_positions = torch.nn.Embedding.from_pretrained(table_TD)
  encoder.config.max_source_positions = frames // 2
  return model


class Contestants:
  """Forward passes of one batch, in which recording b is of speaker `speaker_B[b]`."""

  def __init__(
    self,
    model: torch.nn.Module,
    folders: Sequence[pathlib.Path],
    mel_BTF: np.ndarray,
    speaker_B: np.ndarray,
  ):
    """Opens the folders of all speakers, in their order."""
    self._mel_BTF = torch.tensor(mel_BTF)
    self._speaker_B = speaker_B
    self._base = model
    self._folders = folders
    self._peft = adapting_torch.opened(model, folders, trains=False)

  def base(self) -> np.ndarray:
    """Without any LoRA."""
    return _frames(self._base, self._mel_BTF).numpy()

  def mixed(self) -> np.ndarray:
    """PEFT: `adapter_names` of a batch."""
    names = [adapting_torch.speaker_name(each) for each in self._speaker_B]
    return _frames(self._peft, self._mel_BTF, adapter_names=names).numpy()

  def loop(self) -> np.ndarray:
    """PEFT: `set_adapter`, speaker after speaker."""
    found: list[Any] = [None] * len(self._speaker_B)
    for speaker in np.unique(self._speaker_B):
      (places,) = np.nonzero(self._speaker_B == speaker)
      self._peft.set_adapter(adapting_torch.speaker_name(speaker))
      for place, each in zip(
        places, _frames(self._peft, self._mel_BTF[places]), strict=True
      ):
        found[place] = each
    return torch.stack(found).numpy()

  def stacked(self, table: int, row_B: np.ndarray) -> Forward:
    """A table of all rows, gathered and applied by batched products.

    Args:
      table: how many rows; those of nobody are random.
      row_B: where the recordings' speakers stand.
    """
    model = copy.deepcopy(self._base)
    row_N = dict(zip(self._speaker_B.tolist(), row_B.tolist(), strict=True))
    ids_B = torch.tensor(row_B)
    for name, layer in list(adapting_torch.stack(model, self._folders)):
      parent, _, child = name.rpartition(".")
      mixed = _MixedLinear(layer, table=table, row_N=row_N, ids_B=ids_B)
      setattr(model.get_submodule(parent), child, mixed)
    return lambda: _frames(model, self._mel_BTF).numpy()


def _frames(
  model: Any, mel_BTF: torch.Tensor, adapter_names: list[str] | None = None
) -> torch.Tensor:
  """An encoder's last frames of Whisper; logits of a Conformer."""
  whole = model.get_base_model() if isinstance(model, peft.PeftModel) else model
  with torch.inference_mode(), _named(model, adapter_names):
    if isinstance(whole, transformers.WhisperForConditionalGeneration):
      mel_BFT = mel_BTF.transpose(1, 2)
      return whole.model.encoder(mel_BFT).last_hidden_state
    return whole(input_features=mel_BTF).logits


@contextlib.contextmanager
def _named(model: Any, adapter_names: list[str] | None) -> Iterator[None]:
  """What PEFT's own forward does with names; Whisper's encoder alone has none."""
  if adapter_names is None:
    yield
    return
  with model.base_model._enable_peft_forward_hooks(adapter_names=adapter_names):
    yield


class _MixedLinear(torch.nn.Module):
  """A projection with a row of a table for each recording."""

  def __init__(
    self,
    stacked: Any,
    *,
    table: int,
    row_N: dict[int, int],
    ids_B: torch.Tensor,
  ):
    super().__init__()
    self.base, self.scale = stacked.base, stacked.scale
    self.ids_B = ids_B
    self.a_NIR = _table(stacked.lora_A.transpose(1, 2), table, row_N)
    self.b_NRO = _table(stacked.lora_B.transpose(1, 2), table, row_N)

  def forward(self, input_BTI: torch.Tensor) -> torch.Tensor:
    inner_BTR = torch.bmm(input_BTI, self.a_NIR[self.ids_B])
    return torch.baddbmm(
      self.base(input_BTI),
      inner_BTR,
      self.b_NRO[self.ids_B],
      alpha=self.scale,
    )


def _table(
  own_K: torch.Tensor, table: int, row_N: dict[int, int]
) -> torch.Tensor:
  generator = torch.Generator().manual_seed(0)
  rows = 0.1 * torch.randn((table, *own_K.shape[1:]), generator=generator)
  for speaker, row in row_N.items():
    rows[row] = own_K[speaker].detach()
  return rows

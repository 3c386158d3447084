"""Converted models against transformers: logits, masks, losses, gradients."""

import functools

import jax
import numpy as np
import originals
import pytest
import tiny
from originals import torch

LOGITS, LOSS, GRADIENT = 5e-6, 1e-5, 5e-5
"""Absolute, relative, and relative to the largest."""
LENGTHS = (64, 41, 17)
LABELS_BU = np.array([[1, 1, 4, 0], [2, 5, 0, 0], [7, 0, 0, 0]], np.int32)
LABEL_LENGTHS_B = np.array([3, 2, 1])

CONFIGS = {
  "lasr": ("lasr", {}),
  "parakeet": ("parakeet", {}),
  "w2v_bert": ("w2v_bert", {}),
}
OTHERS = {
  "lasr, biases": (
    "lasr",
    {
      "attention_bias": True,
      "convolution_bias": True,
      "conv_kernel_size": 7,
      "hidden_act": "gelu",
      "pad_token_id": 5,
      "hidden_size": 24,
      "num_attention_heads": 3,
    },
  ),
  "lasr, other weights": (
    "lasr",
    {
      "feed_forward_residual_weights": (0.9, 0.7),
      "conv_residual_weights": (1.1, 0.8),
      "subsampling_conv_kernel_size": 4,
      "layer_norm_eps": 1e-3,
      "num_hidden_layers": 1,
    },
  ),
  "parakeet, no biases": (
    "parakeet",
    {
      "attention_bias": False,
      "convolution_bias": False,
      "conv_kernel_size": 9,
      "scale_input": False,
      "hidden_act": "relu",
      "num_attention_heads": 4,
    },
  ),
  "parakeet, a quarter": (
    "parakeet",
    {
      "subsampling_factor": 4,
      "subsampling_conv_kernel_size": 5,
      "subsampling_conv_channels": 6,
      "pad_token_id": 0,
      "num_hidden_layers": 3,
    },
  ),
  "w2v_bert, relative": (
    "w2v_bert",
    {
      "position_embeddings_type": "relative",
      "layer_norm_eps": 1e-6,
      "conv_depthwise_kernel_size": 31,
      "hidden_act": "gelu_new",
    },
  ),
  "w2v_bert, near": (
    "w2v_bert",
    {
      "left_max_position_embeddings": 0,
      "right_max_position_embeddings": 5,
      "num_attention_heads": 4,
      "pad_token_id": 7,
    },
  ),
}


@functools.partial(jax.jit, static_argnums=0)
def _ours(model, backbone, mel_BTF, length_B, labels_BU, label_length_B):
  """(loss, its gradient by the features, logits, valid frames)."""

  def loss(mel_BTF):
    def one(*utterance):
      return model.loss(backbone, {}, {}, *utterance).total

    return jax.vmap(one)(mel_BTF, length_B, labels_BU, label_length_B).sum()

  def logits(mel_TF, length):
    return model.logits(backbone, {}, {}, None, mel_TF, length, tiny.NO_LABELS)

  total, gradient = jax.value_and_grad(loss)(mel_BTF)
  output = jax.vmap(logits)(mel_BTF, length_B)
  return total, gradient, output.logits, output.length


def _theirs(model, order, mel_BTF, mask_BT, labels_BU, label_length_B):
  """The same of transformers; their labels are ours in another order.

  Some of their models give no loss without a mask: it is PyTorch's then.
  """
  mel = torch.tensor(mel_BTF, requires_grad=True)
  there_BU = np.arange(labels_BU.shape[1]) < label_length_B[:, None]
  labels = torch.tensor(np.where(there_BU, order[labels_BU], -100))
  if mask_BT is None:
    logits = model(mel).logits
    valid_BT = np.ones(logits.shape[:2], int)
    loss = torch.nn.functional.ctc_loss(
      logits.log_softmax(-1).transpose(0, 1),
      labels[labels >= 0],
      torch.tensor(valid_BT.sum(axis=1)),
      torch.tensor(label_length_B),
      blank=order[0],
      reduction="sum",
    )
  else:
    mask = torch.tensor(mask_BT)
    model.config.ctc_loss_reduction = "sum"
    loss, logits = model(mel, attention_mask=mask, labels=labels)[:2]
    valid_BT = mask_BT.astype(int)
    if hasattr(model, "encoder"):
      valid_BT = model.encoder(
        mel, attention_mask=mask, output_attention_mask=True
      ).attention_mask.numpy()
  loss.backward()
  logits = logits.detach().numpy()[..., order]
  return loss.item(), mel.grad.numpy(), logits, valid_BT


@functools.cache
def _pair(name, folder):
  family, changes = (CONFIGS | OTHERS)[name]
  original = originals.model(family, **changes)
  originals.save(folder, family, original)
  return original, *originals.converted(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  return tmp_path_factory.mktemp("originals")


def _compare(pair, family, lengths, *, masked=True):
  original, backbone, found = pair
  count = len(lengths)
  mel_BTF = originals.features(family, lengths)
  order = np.array(found.translated.order)
  labels = LABELS_BU[:count], LABEL_LENGTHS_B[:count]
  mask_BT = np.arange(max(lengths)) < np.array(lengths)[:, None]
  loss, gradient, logits, valid_BT = _theirs(
    original, order, mel_BTF, mask_BT if masked else None, *labels
  )
  ours = jax.tree.map(
    np.asarray,
    _ours(originals.ours(found), backbone, mel_BTF, np.array(lengths), *labels),
  )
  np.testing.assert_array_equal(ours[3], valid_BT.sum(axis=1))
  there = valid_BT.astype(bool)
  return {
    "spread": float(logits[there].std()),
    "logits": float(np.abs(ours[2] - logits)[there].max()),
    "loss": float(abs(ours[0] / loss - 1)),
    "gradient": float(
      np.abs(ours[1] - gradient)[mask_BT].max() / np.abs(gradient).max()
    ),
  }


def _assert_equal(found):
  assert 0.3 < found["spread"] < 3
  assert found["logits"] < LOGITS
  assert found["loss"] < LOSS
  assert found["gradient"] < GRADIENT


@pytest.mark.parametrize(
  "name",
  [
    *CONFIGS,
    *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS),
  ],
)
def test_equals_transformers(name, folders):
  family = (CONFIGS | OTHERS)[name][0]
  pair = _pair(name, folders / name)
  found = _compare(pair, family, LENGTHS)
  print(name, found)
  _assert_equal(found)


@pytest.mark.parametrize("name", CONFIGS)
def test_one_utterance_without_padding_or_mask(name, folders):
  pair = _pair(name, folders / name)
  found = _compare(pair, name, LENGTHS[:1], masked=False)
  print(name, found)
  _assert_equal(found)

"""What makes of mel frames the fewer, wider frames that the layers run on.

In: mel_TF of one utterance with its valid frames. Out: hidden_TD and how many of
its frames are valid: `subsampled` of those that entered. Short as an utterance may
be, one row comes out, valid or not, so that every clip has a shape.
"""

from typing import NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hra.config import BackboneConfig
from hra.nn.activations import ACTIVATIONS
from hra.nn.norm import layer_norm
from hra.nn.types import Types, types_of

Count = TypeVar("Count", int, np.ndarray, jax.Array)


class Halving(NamedTuple):
  """A convolution of stride 2 along time."""

  kernel: int
  padding: int
  """Zeros before and after the utterance, together."""

  def __call__(self, frames: Count) -> Count:
    """Frames that it makes of so many, none where they don't fill its kernel."""
    room = frames + self.padding - self.kernel + 2
    return room * (room > 0) // 2


def halving(config: BackboneConfig) -> Halving:
  """Each of the `config.subsampling_halvings` that there are."""
  kernel = config.subsampling_kernel
  if config.subsampling == "dense_convolution":
    return Halving(kernel, padding=0)
  return Halving(kernel, padding=2 * ((kernel - 1) // 2))


def subsampled(frames: Count, config: BackboneConfig) -> Count:
  """Valid frames after subsampling; for ints (host), NumPy and traced arrays."""
  for _ in range(config.subsampling_halvings):
    frames = halving(config)(frames)
  return frames


class Subsampling(Protocol):
  """One of `SUBSAMPLINGS`."""

  def __call__(
    self, mel_TF: jax.Array, length: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """mel_TF, valid frames -> hidden_TD, valid frames."""


class ConvolutionSubsampling(nnx.Module):
  """Two stride-2 convolutions over time and a projection: a quarter of the frames."""

  def __init__(self, config: BackboneConfig, *, mels: int, rngs: nnx.Rngs):
    types, channels = types_of(config), config.subsampling_channels
    padding = ((2, 0),) if config.causal else ((1, 1),)

    def convolution(inputs: int) -> nnx.Conv:
      return _over_time(
        inputs, channels, kernel=3, padding=padding, types=types, rngs=rngs
      )

    self.first = convolution(mels)
    self.second = convolution(channels)
    self.output = nnx.Linear(channels, config.width, rngs=rngs, **types)

  def __call__(
    self, mel_TF: jax.Array, length: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """mel_TF, valid frames -> hidden [ceil(T/4), D], valid frames."""
    hidden = mel_TF
    for convolution in (self.first, self.second):
      hidden = _cleared(hidden, length)
      hidden = jax.nn.relu(convolution(hidden))
      length = (length + 1) // 2
    return self.output(hidden), length


class DenseConvolutionSubsampling(nnx.Module):
  """A projection, two unpadded stride-2 convolutions, a projection (LASR).

  A frame counts where all that it hears of belongs to the utterance, so that
  nothing has to be cleared.
  """

  def __init__(self, config: BackboneConfig, *, mels: int, rngs: nnx.Rngs):
    types, width = types_of(config), config.width
    channels, kernel = config.subsampling_channels, config.subsampling_kernel

    def convolution(inputs: int, outputs: int) -> nnx.Conv:
      return _over_time(
        inputs,
        outputs,
        kernel=kernel,
        padding="VALID",
        types=types,
        rngs=rngs,
      )

    self.config = config
    self.input = nnx.Linear(mels, width, rngs=rngs, **types)
    self.first = convolution(width, width)
    self.second = convolution(width, channels)
    self.output = nnx.Linear(channels, width, rngs=rngs, **types)

  def __call__(
    self, mel_TF: jax.Array, length: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """mel_TF, valid frames -> hidden_TD, valid frames."""
    hidden = jax.nn.relu(self.input(_long_enough(mel_TF, self.config)))
    for convolution in (self.first, self.second):
      hidden = jax.nn.relu(convolution(hidden))
    return self.output(hidden), subsampled(length, self.config)


class SeparableSubsampling(nnx.Module):
  """Stride-2 convolutions over time and mel bins, and a projection (Parakeet).

  The first is an ordinary one; each of the others filters every channel by itself
  and then mixes the channels (Rekesh et al. 2023, section 2). A frame of `output`
  hears of all bins that are left, and of each bin's channels.
  """

  def __init__(self, config: BackboneConfig, *, mels: int, rngs: nnx.Rngs):
    types, channels = types_of(config), config.subsampling_channels
    self.config, self.halving = config, halving(config)
    kernel = self.halving.kernel
    self.first = nnx.Conv(
      1,
      channels,
      kernel_size=(kernel, kernel),
      strides=(2, 2),
      padding=[(self.halving.padding // 2,) * 2] * 2,
      rngs=rngs,
      **types,
    )
    self.others = nnx.List(
      _Separable(channels, halving=self.halving, types=types, rngs=rngs)
      for _ in range(config.subsampling_halvings - 1)
    )
    bins = subsampled(mels, config)
    self.output = nnx.Linear(bins * channels, config.width, rngs=rngs, **types)

  def __call__(
    self, mel_TF: jax.Array, length: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """mel_TF, valid frames -> hidden_TD, valid frames."""
    mel_TF = _long_enough(_cleared(mel_TF, length), self.config)
    hidden_TFC = self.first(mel_TF[:, :, None])
    length = self.halving(length)
    hidden_TFC = jax.nn.relu(_cleared(hidden_TFC, length))
    for each in self.others:
      filtered_TFC = each.depthwise(hidden_TFC)
      length = self.halving(length)
      hidden_TFC = each.pointwise(_cleared(filtered_TFC, length))
      hidden_TFC = jax.nn.relu(_cleared(hidden_TFC, length))
    return self.output(hidden_TFC.reshape(len(hidden_TFC), -1)), length


class _Separable(nnx.Module):
  """A filter for each channel, and a mixture of the channels."""

  def __init__(
    self, channels: int, *, halving: Halving, types: Types, rngs: nnx.Rngs
  ):
    self.depthwise = _Depthwise(
      channels, halving=halving, types=types, rngs=rngs
    )
    self.pointwise = nnx.Linear(channels, channels, rngs=rngs, **types)


class _Depthwise(nnx.Module):
  """[T, F, C] -> half as many frames and bins; k x k shifted multiply-adds.

  As along time alone, XLA's CPU backend is slow at grouped convolutions.
  """

  def __init__(
    self, channels: int, *, halving: Halving, types: Types, rngs: nnx.Rngs
  ):
    self.halving = halving
    size, dtype = (
      (halving.kernel, halving.kernel, channels),
      types["param_dtype"],
    )
    self.kernel = nnx.Param(
      jax.random.normal(rngs.params(), size, dtype) / halving.kernel
    )
    self.bias = nnx.Param(jnp.zeros(channels, dtype))

  def __call__(self, hidden_TFC: jax.Array) -> jax.Array:
    kernel, around = self.halving.kernel, self.halving.padding // 2
    frames, bins, _ = hidden_TFC.shape
    frames, bins = self.halving(frames), self.halving(bins)
    padded = jnp.pad(hidden_TFC, ((around, around), (around, around), (0, 0)))
    taps_KKC = self.kernel[...].astype(hidden_TFC.dtype)
    filtered = self.bias[...].astype(hidden_TFC.dtype)
    for t in range(kernel):
      for f in range(kernel):
        shifted = padded[t : t + 2 * frames - 1 : 2, f : f + 2 * bins - 1 : 2]
        filtered = filtered + taps_KKC[t, f] * shifted
    return filtered


class Projection(nnx.Module):
  """A norm and a projection, frame by frame (w2v-BERT)."""

  def __init__(self, config: BackboneConfig, *, mels: int, rngs: nnx.Rngs):
    types = types_of(config)
    self.norm = layer_norm(mels, parts=config.conformer, types=types, rngs=rngs)
    self.output = nnx.Linear(mels, config.width, rngs=rngs, **types)

  def __call__(
    self, mel_TF: jax.Array, length: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """mel_TF, valid frames -> hidden_TD, the same frames."""
    return self.output(self.norm(mel_TF)), length


class HalfSubsampling(nnx.Module):
  """Two convolutions over time, the second of stride 2 (Whisper).

  Silence behind an utterance is heard like the rest, so that nothing is cleared.
  """

  def __init__(self, config: BackboneConfig, *, mels: int, rngs: nnx.Rngs):
    types, width = types_of(config), config.width

    def convolution(inputs: int, stride: int) -> nnx.Conv:
      return _over_time(
        inputs,
        width,
        kernel=3,
        stride=stride,
        padding=((1, 1),),
        types=types,
        rngs=rngs,
      )

    self.first, self.second = convolution(mels, 1), convolution(width, 2)
    self.config = config

  def __call__(
    self, mel_TF: jax.Array, length: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """mel_TF, valid frames -> hidden_TD, valid frames."""
    gelu = ACTIVATIONS["gelu"]
    hidden_TD = gelu(self.second(gelu(self.first(mel_TF))))
    return hidden_TD, subsampled(length, self.config)


SUBSAMPLINGS = {
  "convolution": ConvolutionSubsampling,
  "dense_convolution": DenseConvolutionSubsampling,
  "separable": SeparableSubsampling,
  "projection": Projection,
  "half": HalfSubsampling,
}


def _over_time(
  inputs: int,
  outputs: int,
  *,
  kernel: int,
  padding: str | tuple[tuple[int, int], ...],
  stride: int = 2,
  types: Types,
  rngs: nnx.Rngs,
) -> nnx.Conv:
  return nnx.Conv(
    inputs,
    outputs,
    kernel_size=(kernel,),
    strides=(stride,),
    padding=padding,
    rngs=rngs,
    **types,
  )


def _long_enough(mel_TF: jax.Array, config: BackboneConfig) -> jax.Array:
  """With zeros behind it where it would leave no frame."""
  frames = len(mel_TF)
  while subsampled(frames, config) == 0:
    frames += 1
  return jnp.pad(mel_TF, ((0, frames - len(mel_TF)), (0, 0)))


def _cleared(frames: jax.Array, length: jax.Array) -> jax.Array:
  """Zeros where the first axis is padding."""
  valid_T = jnp.arange(len(frames)) < length
  shape = (-1, *(1,) * (frames.ndim - 1))
  return jnp.where(valid_T.reshape(shape), frames, 0)

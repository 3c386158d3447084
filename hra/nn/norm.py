"""The layer norms of an encoder."""

from flax import nnx

from hra.config import ConformerConfig
from hra.nn.types import Types

EPSILON = 1e-5
"""Where nothing else is said."""


def layer_norm(
  width: int, *, parts: ConformerConfig, types: Types, rngs: nnx.Rngs
) -> nnx.LayerNorm:
  """A norm over the channels of each frame."""
  return nnx.LayerNorm(
    width,
    epsilon=parts.norm_epsilon,
    use_bias=parts.norm_bias,
    rngs=rngs,
    **types,
  )

"""The tiny shape of the tests in the forms of the public backbones."""

from types import MappingProxyType

from hra.config import ConformerConfig, DecoderConfig, TransformerConfig

LASR = MappingProxyType(
  {
    "kernel": 4,
    "subsampling": "dense_convolution",
    "subsampling_kernel": 5,
    "conformer": ConformerConfig(
      norm_epsilon=1e-6,
      norm_bias=False,
      projection_bias=False,
      convolution_bias=False,
      convolution_norm="folded",
      feed_forward_weights=(1.5, 0.5),
      convolution_weights=(2.0, 1.0),
      final_norm=True,
    ),
  }
)
PARAKEET = MappingProxyType(
  {
    "position": "relative",
    "subsampling": "separable",
    "subsampling_halvings": 3,
    "scale_input": True,
    "conformer": ConformerConfig(convolution_norm="folded"),
  }
)
W2V_BERT = MappingProxyType(
  {
    "position": "distance",
    "subsampling": "projection",
    "subsampling_channels": 32,
    "subsampling_halvings": 0,
    "conformer": ConformerConfig(
      convolution_bias=False,
      causal_convolution=True,
      distance_left=3,
      distance_right=1,
    ),
  }
)
WHISPER = MappingProxyType(
  {
    "encoder": "transformer",
    "subsampling": "half",
    "subsampling_halvings": 1,
    "transformer": TransformerConfig(frames=50),
    "decoder": DecoderConfig(kind="transformer", heads=2, places=16),
  }
)
FORMS = MappingProxyType(
  {"lasr": LASR, "parakeet": PARAKEET, "w2v_bert": W2V_BERT}
)
"""Changes of `tiny.BACKBONE` that make it one of them; `WHISPER` hears a second of
audio, however short an utterance is."""

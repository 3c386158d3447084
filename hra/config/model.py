"""What hears and what adapts it: features, backbone, decoder, adapter, task space."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(unsafe_hash=True)
class FrontendConfig:
  """Waveform -> log-mel (`hra.features.frontend`; presets stand there)."""

  window: Literal["hann", "hann_symmetric", "povey"] = "hann"
  frame_length: int = 400
  """Window length in samples."""
  hop_length: int = 160
  fft_length: int = 512
  centered: Literal["none", "zero", "reflect"] = "none"
  """How the signal is padded by half a window at both ends."""
  pad_to: int = 0
  """Samples of silence-padded audio that a model always hears (Whisper: 30 s)."""
  pre_emphasis: float = 0.0
  """0 is none."""
  pre_emphasis_on: Literal["signal", "frame"] = "signal"
  remove_dc: bool = False
  """Subtract each frame's mean (Kaldi)."""
  scale: float = 1.0
  """Factor of the waveform before framing (Kaldi's 16-bit range: 32768)."""
  num_mels: int = 80
  low_hz: float = 0.0
  high_hz: float = 8000.0
  mel_scale: Literal["slaney", "htk", "kaldi"] = "htk"
  mel_norm: Literal["none", "slaney"] = "none"
  triangles_in: Literal["hz", "mel"] = "hz"
  """In which space the triangular filters are straight."""
  log: Literal["ln", "log10"] = "ln"
  floor: float = 1e-5
  floor_by: Literal["max", "add"] = "max"
  normalize: Literal["none", "per_mel", "whisper"] = "none"
  """`per_mel`: each mel bin's mean and deviation over the utterance's frames."""
  normalize_epsilon: float = 1e-5
  epsilon_on: Literal["deviation", "variance"] = "deviation"
  """What `normalize_epsilon` is added to."""
  stack: int = 1
  """Successive frames joined into one (w2v-BERT: 2)."""

  @property
  def width(self) -> int:
    """Numbers of a frame of features."""
    return self.num_mels * self.stack


@dataclasses.dataclass(unsafe_hash=True)
class SpecAugmentConfig:
  """Masks on the log-mel (`hra.features.specaugment`)."""

  freq_masks: int = 0
  freq_width: int = 27
  """Exclusive upper bound of a frequency mask's width, in mel bins."""
  time_masks: int = 0
  time_width: int = 100
  """Exclusive upper bound of a time mask's width, in frames."""
  time_ratio: float = 1.0
  """A time mask covers at most this part of the utterance's own length."""
  time_multiplicity: float = 0.0
  """Adaptive number of time masks: this times the length, `time_masks` at most."""
  time_size: float = 0.0
  """Adaptive bound of a time mask's width: this times the length; needs
  `time_width` 0."""
  time_budget: float = 1.0
  """All time masks together: at most this part of the utterance's own length."""
  warp: int = 0
  """Time warp of up to this many frames either way; 0 is none."""
  fill: Literal["zero", "mean", "noise"] = "zero"
  """`mean`: each bin's own; `noise`: standard Gaussian, in time masks."""
  probability: float = 1.0
  """Part of the utterances that is augmented at all."""
  start: int = 0
  """Own steps before anything is augmented."""
  warmup: int = 0
  """Own steps, from there on, over which the probability grows to its value."""


Activation = Literal["silu", "relu", "gelu", "gelu_tanh", "tanh"]


Task = Literal["transcribe", "translate"]


@dataclasses.dataclass(unsafe_hash=True)
class DecoderConfig:
  """From the encoder's frames to labels (`hra.decoders`).

  A field that the kind doesn't use has to stay at its default.
  """

  kind: Literal["ctc", "rnnt", "tdt", "las", "transformer"] = "ctc"
  """`ctc`: a projection; `rnnt`: a transducer; `tdt`: one that also says how many
  frames each label and each blank lasts (Xu et al. 2023), which takes all fields of
  rnnt; `las`: attention and an LSTM that spells (Listen, Attend and Spell);
  `transformer`: layers that spell (Whisper)."""
  prediction: Literal["lstm", "stateless"] = "lstm"
  """What a transducer knows of the labels so far (rnnt): all, or the last few."""
  context: int = 1
  """Labels that a stateless prediction net sees (rnnt)."""
  layers: int = 1
  """LSTM layers (rnnt with an LSTM, las), or its own (transformer)."""
  width: int = 128
  """Of these layers, or of a stateless net's embeddings (rnnt, las)."""
  embedding: int = 64
  """Numbers for a label that enters LSTM layers (rnnt, las)."""
  joint: int = 128
  """Inner width of the joint (rnnt)."""
  joint_activation: Activation = "tanh"
  """(rnnt)"""
  durations: tuple[int, ...] = (0, 1, 2, 3, 4)
  """Frames that a label or a blank may last (tdt); a blank lasts 1 at least."""
  sigma: float = 0.0
  """Nats that training takes from each label's and blank's log-probability (tdt), so
  that fewer, longer ones are preferred."""
  frame_labels: int = 10
  """Labels that greedy search hears in one frame at most (rnnt, tdt); 0: any."""
  most_labels: int = 1
  """Labels that greedy search hears at most, for each frame there is (rnnt, tdt)."""
  chunk: int = 4
  """Frames whose logits exist at a time (rnnt); changes memory, not results."""
  attention: int = 128
  """Width of the attention, all heads together (las)."""
  heads: int = 1
  """Of the attention (las, transformer)."""
  location: int = 0
  """Convolutions of the attention so far that it hears of (las); 0 is none."""
  label_smoothing: float = 0.0
  """Part of the target that all labels share (las, transformer)."""
  feed_forward: int = 256
  """Width of the feed-forward branches (transformer)."""
  places: int = 448
  """Labels of a sentence at most, the prompt included (transformer)."""
  language: str = ""
  """What is spoken, such as `de` (transformer); empty: as the backbone's folder says."""
  task: Task = "transcribe"
  """What is written (transformer): the same language, or English."""
  timestamps: bool = False
  """Whether times stand between what is heard (transformer)."""
  prompt: tuple[int, ...] = (0,)
  """Labels that begin a sentence (transformer); where the tokenizer has languages
  and tasks, it follows from `language`, `task` and `timestamps`."""
  suppressed: tuple[int, ...] = ()
  """Labels that a search never says (transformer)."""
  suppressed_first: tuple[int, ...] = ()
  """Labels that a search never begins with (transformer)."""
  texts: int = 0
  """Labels 1 to this one are text (transformer with times)."""
  first_time: int = 0
  """The label of 0 s, times being the last labels (transformer); 0: there are none."""
  latest_first_time: int = 0
  """Steps of 0.02 s by which the first time is at most later (transformer); 0: any."""


@dataclasses.dataclass(unsafe_hash=True)
class ConformerConfig:
  """What a Conformer's layer is made of, its sizes aside (`hra.backbone.conformer`).

  The defaults are ours; public backbones are other values of it
  (`hra.backbone.foreign`).
  """

  norm_epsilon: float = 1e-5
  norm_bias: bool = True
  projection_bias: bool = True
  """Of the attention's and the feed-forward modules' projections."""
  convolution_bias: bool = True
  """Of the convolution module's two projections."""
  convolution_norm: Literal["layer", "folded"] = "layer"
  """After the depthwise convolution. `folded`: a frozen BatchNorm, which is part of
  that convolution's taps and makes its bias."""
  causal_convolution: bool = False
  """It sees no later frame even where attention does; `causal` implies it."""
  activation: Activation = "silu"
  """Of the feed-forward modules and of the convolution module."""
  feed_forward_weights: tuple[float, ...] = (1.0, 0.5)
  """Of what enters a feed-forward module and of what leaves it, where they are
  summed."""
  convolution_weights: tuple[float, ...] = (1.0, 1.0)
  """The same of the convolution module."""
  distance_left: int = 64
  """Frames back that position `distance` tells apart."""
  distance_right: int = 8
  """The same, ahead."""
  final_norm: bool = False
  """One more norm after the last layer."""


@dataclasses.dataclass(unsafe_hash=True)
class TransformerConfig:
  """What Transformer layers are made of, their sizes aside."""

  activation: Activation = "gelu"
  """Of the feed-forward branches, those of a decoder included."""
  frames: int = 1500
  """That the encoder always hears, silence included: its table of positions."""


@dataclasses.dataclass(unsafe_hash=True)
class BackboneConfig:
  """An encoder and a decoder (`hra.backbone.network`).

  `heads` to `conformer` are the Conformer's, of which Transformer layers have
  `heads` and `feed_forward` too.
  """

  encoder: Literal["conformer", "lstm", "transformer"] = "conformer"
  """`lstm`: bidirectional layers of width / 2 cells a direction, or forward ones
  where `causal`; `transformer`: attention alone (Whisper)."""
  width: int = 64
  layers: int = 3
  heads: int = 4
  feed_forward: int = 256
  """Width of each feed-forward module (Conformer: 4 x width)."""
  kernel: int = 15
  """Taps of the depthwise convolution."""
  position: Literal["rotary", "relative", "distance"] = "rotary"
  """`rotary`: queries and keys are turned; `relative`: sinusoids of the offset, as
  in Transformer-XL; `distance`: a learnt vector for each offset, clipped."""
  causal: bool = False
  """Attention and convolution see no later frame: ready for streaming."""
  left_context: int = 0
  """Frames of left context in causal attention; 0 is all of them."""
  conformer: ConformerConfig = dataclasses.field(
    default_factory=ConformerConfig
  )
  transformer: TransformerConfig = dataclasses.field(
    default_factory=TransformerConfig
  )
  subsampling: Literal[
    "convolution",
    "dense_convolution",
    "separable",
    "projection",
    "half",
  ] = "convolution"
  """What precedes the layers (`hra.nn.subsampling`): convolutions of stride 2 over
  time; such without padding, between two projections; over time and mel bins,
  depthwise-separable from the second on; a norm and a projection, frame by frame;
  two convolutions, the second of stride 2."""
  subsampling_channels: int = 32
  """Of these convolutions."""
  subsampling_kernel: int = 3
  """Taps of these convolutions, in each direction."""
  subsampling_halvings: int = 2
  """How many of these convolutions there are."""
  scale_input: bool = False
  """Multiply what enters the layers by the square root of their width."""
  vocabulary: int = 0
  """Labels, the blank (id 0) included; 0 takes the tokenizer's."""
  dtype: Literal["float32", "bfloat16", "float64"] = "float32"
  """Of the computation; norms, softmax and losses stay at least float32."""
  param_dtype: Literal["float32", "bfloat16", "float64"] = "float32"
  weights: Literal["float", "int8"] = "float"
  """Of the layers' projections while they are frozen. `int8`: in 8 bits, with a
  scale for each output (`hra.nn.int8`; extra `int8`)."""
  remat: Literal["none", "dots", "branches", "full"] = "none"
  """What the backward pass recomputes of a layer: elementwise functions; all but
  products with weights; all but what its branches say; everything."""
  decoder: DecoderConfig = dataclasses.field(default_factory=DecoderConfig)


@dataclasses.dataclass(unsafe_hash=True)
class AdapterConfig:
  """What a task owns and what tasks share (`hra.adapters`).

  A field that the family doesn't use has to stay at its default.
  """

  family: Literal["hra", "residual", "lora", "bitfit", "full", "none"] = "hra"
  """`hra`: hierarchical recurrent; `residual`: a bottleneck after each layer;
  `lora`: low-rank updates of projections; `bitfit`: the layers' biases; `full`:
  every weight of the backbone, each task its own (a baseline); `none`: the
  backbone as it is."""
  width: int = 128
  """Of the recurrent controller (hra), the bottleneck (residual), the update's
  rank (lora)."""
  controller: Literal["indrnn", "gru", "none"] = "indrnn"
  """The recurrence over depth (hra); `none` is a feed-forward controller."""
  controllers: Literal["shared", "per_layer"] = "shared"
  """One controller for all layers (hra, the paper), or one for each."""
  head: Literal["linear", "feed_forward"] = "linear"
  """(hra)"""
  head_width: int = 64
  """Hidden width of a feed-forward head (hra)."""
  heads: Literal["personal", "shared", "both"] = "personal"
  """Who owns heads (hra): each task, all tasks together (control), or both,
  summed."""
  norm: Literal["frozen", "per_task"] = "frozen"
  """The layer norm before the bottleneck (residual): without parameters, or with
  a scale and a bias of the task's own."""
  alpha: float = 0.0
  """Updates are multiplied by alpha / rank (lora); 0 is twice the rank."""
  stacks: Literal["encoder", "decoder", "both"] = "encoder"
  """Layers that are adapted; a Transformer decoder has some too."""
  sites: tuple[str, ...] = ("attention", "first", "second")
  """Projections that get an update (lora), by the beginning of their path in a
  layer, such as `attention.query` or `second.down`; of one stack alone where both
  are adapted: `decoder.attention`."""


@dataclasses.dataclass(unsafe_hash=True)
class SpaceConfig:
  """How a task's number becomes its row (`hra.adapters.spaces`)."""

  kind: Literal["table", "offset", "embedding"] = "table"
  """`table`: each task owns its row; `offset`: it owns the difference of its row
  from one that all share, toward which `train.rows.weight_decay` then draws it;
  `embedding`: it owns a short vector, and a shared generator makes the row of it."""
  size: int = 16
  """Numbers in an embedding."""
  rank: int = 8
  """Of the row that an embedding generates, over its layers."""

"""The experiment as one typed tree of dataclasses; every default lives here.

The dataclasses are mutable so that `--config.adapter.width=64` can set a field;
`hra.config_tree.validate` is called once after parsing and the tree is read-only
by convention from then on (those that are static arguments of compiled functions
hash by value). A function gets the sub-config that it needs, never the whole tree.
"""

import dataclasses
from typing import Literal

from hra.config_language import LanguageModelConfig, SentencesConfig
from hra.config_sound import MultistyleConfig


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


@dataclasses.dataclass(unsafe_hash=True)
class DecoderConfig:
  """From the encoder's frames to labels (`hra.decoders`).

  A field that the kind doesn't use has to stay at its default.
  """

  kind: Literal["ctc", "rnnt", "las"] = "ctc"
  """`ctc`: a projection; `rnnt`: a transducer; `las`: attention and an LSTM that
  spells (Listen, Attend and Spell)."""
  prediction: Literal["lstm", "stateless"] = "lstm"
  """What a transducer knows of the labels so far (rnnt): all, or the last few."""
  context: int = 1
  """Labels that a stateless prediction net sees (rnnt)."""
  layers: int = 1
  """LSTM layers (rnnt with an LSTM, las)."""
  width: int = 128
  """Of these layers, or of a stateless net's embeddings (rnnt, las)."""
  embedding: int = 64
  """Numbers for a label that enters LSTM layers (rnnt, las)."""
  joint: int = 128
  """Inner width of the joint (rnnt)."""
  chunk: int = 8
  """Frames whose logits exist at a time (rnnt); changes memory, not results."""
  attention: int = 128
  """Width of the attention, all heads together (las)."""
  heads: int = 1
  """Of the attention (las)."""
  location: int = 0
  """Convolutions of the attention so far that it hears of (las); 0 is none."""
  label_smoothing: float = 0.0
  """Part of the target that all labels share (las)."""


@dataclasses.dataclass(unsafe_hash=True)
class BackboneConfig:
  """An encoder and a decoder (`hra.backbone.network`).

  `heads` to `left_context` are the Conformer's but for `causal`.
  """

  encoder: Literal["conformer", "lstm"] = "conformer"
  """`lstm`: bidirectional layers of width / 2 cells a direction, or forward ones
  where `causal`."""
  width: int = 64
  layers: int = 3
  heads: int = 4
  feed_forward: int = 256
  """Width of each feed-forward module (Conformer: 4 x width)."""
  kernel: int = 15
  """Taps of the depthwise convolution."""
  position: Literal["rotary", "relative"] = "rotary"
  causal: bool = False
  """Attention and convolution see no later frame: ready for streaming."""
  left_context: int = 0
  """Frames of left context in causal attention; 0 is all of them."""
  subsampling_channels: int = 32
  """Channels of the two stride-2 convolutions that precede the layers."""
  vocabulary: int = 0
  """Labels, the blank (id 0) included; 0 takes the tokenizer's."""
  dtype: Literal["float32", "bfloat16", "float64"] = "float32"
  """Of the computation; norms, softmax and losses stay at least float32."""
  param_dtype: Literal["float32", "bfloat16", "float64"] = "float32"
  remat: Literal["none", "dots", "full"] = "none"
  """What the backward pass recomputes of a layer."""
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
  sites: tuple[str, ...] = ("attention", "first", "second")
  """Projections that get an update (lora), by the beginning of their path in a
  layer, such as `attention.query` or `second.down`."""


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


@dataclasses.dataclass
class OptimizerConfig:
  """AdamW of one parameter group; for rows, of each task by itself."""

  learning_rate: float = 1e-3
  schedule: Literal["constant", "cosine", "linear", "exponential"] = "cosine"
  """`exponential` ends at a hundredth of the learning rate, the others at 0."""
  warmup_steps: int = 0
  hold_steps: int = 0
  """Updates at the full rate between warm-up and decay."""
  weight_decay: float = 0.0
  clip_norm: float = 1.0
  """Global norm of the group's gradient (a task's own, for rows); 0 is none."""
  b1: float = 0.9
  b2: float = 0.999


@dataclasses.dataclass
class PrepareConfig:
  """Manifests -> prepared data (`hra.data.prepare`)."""

  dev_fraction: float = 0.1
  """Part of each task's sentences held out for choosing among models."""
  test_fraction: float = 0.1
  """Part of each task's sentences held out for reporting."""
  split_by: Literal["auto", "given", "sentence", "session"] = "auto"
  """`auto`: as the corpus is divided, and what it lacks of dev and test is held
  out of train by sentence. `given`: only as it is divided. `sentence`, `session`:
  divided anew, so that no sentence (no sitting of a task) is in two splits."""
  min_seconds: float = 0.1
  """A shorter recording is a problem."""
  max_seconds: float = 60.0
  """A longer one is: cut it by `offset` and `duration`."""
  labels_per_second: float = 25.0
  """A transcript with more labels than that for its recording can't be aligned by
  a backbone with a frame each 40 ms: a problem; 0 asks for nothing."""
  unknown: Literal["problem", "drop"] = "problem"
  """Characters that a given tokenizer can't spell."""
  bad: Literal["refuse", "skip"] = "refuse"
  """Recordings and transcripts that can't be used: list them and stop, or leave
  them out and say so."""
  vocabulary: int = 1024
  """The most labels of a tokenizer, the blank included; fewer where the
  transcripts need fewer."""
  kind: Literal["char", "unigram", "bpe"] = "char"
  """What a label stands for: a character, or a piece of a word."""
  seed: int = 0
  """Another seed holds out other sentences."""
  jobs: int = 0
  """Processes that decode recordings; 0 is one for each processor."""


@dataclasses.dataclass
class DataConfig:
  """Prepared data -> batches of K tasks x B utterances (`hra.data`)."""

  source: Literal["prepared", "synthetic"] = "prepared"
  """`synthetic` first makes the corpus that `config.synthetic` describes."""
  path: str = ""
  """A folder that `hra prepare` made; where synthetic data go, by default `data`
  in the run's folder."""
  tasks: tuple[str, ...] = ()
  """Names of the tasks that take part; empty is all of the train split's."""
  without: tuple[str, ...] = ()
  """Names of tasks that take no part."""
  train_split: str = "train"
  dev_split: str = "dev"
  test_split: str = "test"
  grouping: Literal["task", "pooled"] = "task"
  """`pooled` treats all utterances as one task: pretraining."""
  tasks_per_batch: int = 8
  """K."""
  utterances_per_task: int = 8
  """B."""
  eval_batch: int = 64
  """Utterances in an evaluation batch."""
  buckets: int = 2
  """Static shapes: length buckets, cut where the train split pads least."""
  bucket_seconds: tuple[float, ...] = ()
  """Their upper ends, ascending; a task has the same minibatches in two jobs only
  if both have the same ends. Empty cuts `buckets` of them from the data."""
  max_seconds: float = 30.0
  """A longer utterance is an error when the split is opened."""
  max_task_utterances: int = 0
  """How many of a task's utterances training uses at most, chosen by a hash of
  (seed, id): a larger cap keeps the smaller one's choice; 0 uses all."""
  max_task_seconds: float = 0.0
  """Likewise in seconds of audio; one utterance is used whatever its length."""
  temperature: float = 0.0
  """T, from 1 on, makes sampling follow the data as n ** (1 / T): 1 by a task's
  utterances n, more towards the same for all (`hra.data.balance`). Of tasks, it
  sets own steps: train.steps (n / reference_utterances) ** (1 / T). Of the tasks
  in a pool, shares: those of small ones are repeated. 0 leaves both as they are:
  train.steps for every task, a pool at natural frequencies."""
  reference_utterances: int = 100
  """Utterances of a task that takes train.steps own steps. A constant and not a
  mean over tasks: what a task does may not depend on the others."""
  task_shares: str = ""
  """A JSON file {task: share > 0} of the utterances of a pool, all its tasks named:
  those of tasks that have less than their share are repeated. None is left out."""
  task_weights: str = ""
  """A JSON file {task: weight >= 0} of weights in the shared gradients; 1 for who
  is not named. A task of weight 0 trains its row and is not heard. Other weights
  count relative to those of the tasks in the same batch: with one task a batch
  they do nothing."""
  balance: float = 0.0
  """In [0, 1]: these weights times (reference_utterances / n) ** balance. At 1
  tasks, not utterances, have the same say where own steps follow the data; as
  all weights, among the tasks of one batch."""
  speed_low: float = 1.0
  """Speed perturbation ~ U(low, high), by resampling; 1 and 1 is none."""
  speed_high: float = 1.0
  multistyle: MultistyleConfig = dataclasses.field(
    default_factory=MultistyleConfig
  )
  """Noise and rooms for part of the utterances."""
  prefetch: int = 4
  """Batches that are loaded and mixed ahead of the device."""
  threads: int = 2


@dataclasses.dataclass
class MeshConfig:
  """Devices along each mesh axis (`hra.sharding`); -1 takes what is left."""

  data: int = -1
  fsdp: int = 1
  tensor: int = 1


@dataclasses.dataclass
class TrainConfig:
  """The loop (`hra.train`)."""

  mode: Literal["adapt", "pretrain", "language_model"] = "adapt"
  """`adapt`: the backbone is frozen; `pretrain`: the backbone is what trains;
  `language_model`: a language model of the backbone's labels (`hra.language_jobs`),
  by the optimizer `shared`."""
  start: Literal["random", "backbone"] = "random"
  """What pretraining starts from: `backbone` goes on from `backbone_path` (full
  fine-tuning, when the data are pooled)."""
  steps: int = 400
  """Own steps of each task (of the pool, when pretraining)."""
  shared_part: float = 0.5
  """Part of the job's joint steps in which shared parameters train; their
  schedule ends there and they are frozen. 0 never trains them. What pretrains
  trains to the end."""
  task_settings: str = ""
  """A JSON file {task: {setting: value}} of the rows' learning_rate, schedule,
  warmup_steps, weight_decay and clip_norm, and of steps and patience, where a
  task's are not those of `rows` and this group."""
  log_every: int = 20
  """Joint steps between two lines of metrics."""
  eval_every: int = 0
  """Own steps between two evaluations of a task on the dev split; 0 is only at
  the end."""
  select: Literal["last", "best"] = "last"
  """What is evaluated and exported. `best`: of each task, the row of its lowest
  dev WER since the shared parameters were frozen; when pretraining, the
  checkpoint of the lowest. Training always goes on from the newest."""
  patience: int = 0
  """Evaluations in a row without a lower dev WER after which a task stops; 0
  never stops one. Needs select 'best'."""
  max_bad_steps: int = 1
  """Own steps whose loss or gradient is not finite after which a task is
  quarantined: it trains no more."""
  save_seconds: float = 60.0
  """Wall time between two checkpoints."""
  keep: int = 2
  """Newest checkpoints kept."""
  weight_noise: float = 0.0
  """When pretraining, standard deviation of the Gaussian noise on the weights that
  a step's gradients are computed at (Graves 2011); 0 is none."""
  weight_noise_start: int = 0
  """Steps before it."""
  keep_best: int = 1
  """When pretraining, checkpoints of the lowest dev WER kept as well: each
  evaluation of the dev split saves; of equals, the earliest."""
  rows: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
  shared: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)


@dataclasses.dataclass
class EvalConfig:
  """Scoring (`hra.evaluate`)."""

  normalizer: Literal["basic", "whisper"] = "basic"
  """`basic`: lower case, no punctuation but apostrophes, single spaces."""
  bootstrap: int = 1000
  """Resamples of utterances behind every interval."""
  confidence: float = 0.95
  """Of every interval, in (0, 1)."""
  seed: int = 0
  """Of the resampling."""
  guard_words: int = 8
  """Reference words that a task's dev split needs before it is judged whether
  its Submodel is better than the backbone."""


@dataclasses.dataclass
class SyntheticConfig:
  """A corpus of synthesised speech (`hra.data.synthetic`)."""

  population: Literal["typical", "atypical"] = "atypical"
  """`typical` pretrains a backbone; each `atypical` speaker is a task."""
  speakers: int = 20
  train_utterances: int = 40
  """Of each speaker; likewise of dev and test."""
  dev_utterances: int = 10
  test_utterances: int = 16
  unseen_speakers: int = 8
  """Voices of the typical population's test split, heard nowhere else."""
  severity: float = 0.6
  """How many habits of pronunciation an atypical speaker has, and how strange
  the sound: 0 is typical speech; at 1 about half of the phonemes are wrong."""
  severity_spread: float = 0.0
  """Each atypical speaker's own severity lies within this of `severity`, uniform."""
  combinations: Literal["any", "training", "held_out"] = "any"
  """Which habits an atypical speaker may have together: each `held_out` speaker has
  a pair of them that no `training` speaker has, whatever the seeds; every single
  habit stands in both (`hra.data.synthetic.combinations`)."""
  seed: int = 0
  snr_low: float = 15.0
  """Decibels of every utterance's coloured noise, uniform."""
  snr_high: float = 40.0


@dataclasses.dataclass
class Config:
  """One experiment."""

  name: str = "hra"
  seed: int = 0
  backbone_path: str = "tiny"
  """A backbone's folder; `tiny` is the bundled one; unused when pretraining."""
  tokenizer: str = ""
  """A Sentencepiece model; empty takes the prepared data's for pretraining, and the
  backbone's for a language model."""
  features: FrontendConfig = dataclasses.field(default_factory=FrontendConfig)
  augment: SpecAugmentConfig = dataclasses.field(
    default_factory=SpecAugmentConfig
  )
  backbone: BackboneConfig = dataclasses.field(default_factory=BackboneConfig)
  adapter: AdapterConfig = dataclasses.field(default_factory=AdapterConfig)
  space: SpaceConfig = dataclasses.field(default_factory=SpaceConfig)
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  synthetic: SyntheticConfig = dataclasses.field(
    default_factory=SyntheticConfig
  )
  prepare: PrepareConfig = dataclasses.field(default_factory=PrepareConfig)
  """How synthetic data are prepared; the tokenizer's kind and size."""
  mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
  train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
  evaluate: EvalConfig = dataclasses.field(default_factory=EvalConfig)
  language_model: LanguageModelConfig = dataclasses.field(
    default_factory=LanguageModelConfig
  )
  """What trains with train.mode 'language_model'."""
  sentences: SentencesConfig = dataclasses.field(
    default_factory=SentencesConfig
  )

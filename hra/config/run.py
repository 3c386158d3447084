"""Data, training, evaluation, and the experiment that holds all of the tree."""

import dataclasses
from typing import Literal

from hra.config.language import LanguageModelConfig, SentencesConfig
from hra.config.model import (
  AdapterConfig,
  BackboneConfig,
  FrontendConfig,
  SpaceConfig,
  SpecAugmentConfig,
)
from hra.config.sound import MultistyleConfig


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
  slices: int = 1
  """Slices of TPUs that a data center's network connects; each divides the batch
  further."""
  shard_rows: Literal["auto", "always", "never"] = "auto"
  """Whether what tasks own lies divided over all devices, with its moments and
  best rows; `auto`: from 256 MiB on."""


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
  rows_from: str = ""
  """What rows start from, in place of fresh ones: a Submodel's file or a LoRA folder
  of PEFT, from which each task starts; or a folder that has one for each task, by
  its name. They have to be of `adapter`."""
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
  stall_seconds: float = 600.0
  """Without progress, after which the watchdog says which process stalls, and in what
  (`hra.train.watchdog`); 0 watches nothing. From the first step to the last: neither
  restoring nor exporting is watched."""
  stall_abort: bool = False
  """Whether a process then ends with exit code 70, so that it is started again; not in
  a save, which is told only."""
  profile_steps: int = 5
  """How many next steps SIGUSR1 captures (`hra.train.profiler`)."""
  rows: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
  shared: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)


@dataclasses.dataclass(unsafe_hash=True)
class SearchConfig:
  """How what is said is searched for (`hra.decoders.beam`)."""

  beam: int = 0
  """Hypotheses that go on together; 0 is greedy search, which has no use for what
  follows."""
  language_model: str = ""
  """The folder `lm` of a run that trained one, or an ARPA file of n-grams of the
  recogniser's labels (`hra.decoders.ngram`)."""
  language_model_weight: float = 0.3
  """Of its log-probabilities, where there is one: shallow fusion."""
  length_bonus: float = 0.0
  """Nats for each label."""
  length_normalization: float = 0.0
  """Power of (5 + labels) / 6 that divides log-probabilities; 0 is none."""
  coverage: float = 0.0
  """Nats for each frame that was attended to (las, transformer)."""


@dataclasses.dataclass(unsafe_hash=True)
class ChunksConfig:
  """How long recordings are transcribed piece by piece (`hra.evaluate.long`)."""

  seconds: float = 30.0
  """Of a piece; a longer recording is cut into such. 0 cuts none."""
  overlap: float = 6.0
  """Seconds that two neighbours hear both. They meet in the middle half of them,
  where they say least, so that each has a quarter of them as context at least."""
  batch: int = 8
  """Pieces that are run together."""


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
  search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
  """Of `hra evaluate`; while training, dev is judged greedily."""
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
  """A backbone's folder; `tiny` is the bundled one; unused when pretraining. Empty, it
  can only be planned: the one that `backbone` describes."""
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

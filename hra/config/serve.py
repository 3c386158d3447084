"""What `hra serve` is set up with: its engine, and what clients may ask of it."""

import dataclasses
from typing import Literal


@dataclasses.dataclass
class EngineConfig:
  """The resident backbone, the slots of Submodels, and batches (`hra.serve.engine`)."""

  slots: int = 64
  """Submodels of one kind that are on the device at once."""
  host_rows: int = 1024
  """Submodels that are kept in the host's memory, the latest used."""
  batch_sizes: tuple[int, ...] = (1, 4, 16)
  """Requests in a batch, ascending; a batch is filled up to the next of them."""
  bucket_seconds: tuple[float, ...] = (2.5, 5.0, 10.0, 20.0, 30.0)
  """Lengths that a batch is padded to, ascending; each is compiled at start-up. One
  more is that of a piece of a long recording; a front end that pads hears only that."""
  queue: int = 256
  """Requests that wait, pieces of long recordings counted one by one; what comes
  on top of them is refused."""
  loaders: int = 2
  """Threads that read Submodels from the store."""
  refresh_seconds: float = 1.0
  """How long a Submodel is used without asking the store for a newer version."""
  check_seconds: float = 0.2
  """How long a request waits for the store's word on a Submodel that is there."""
  load_seconds: float = 30.0
  """How long it waits for one that has to be read."""
  sweep_seconds: float = 300.0
  """How long a Submodel that nobody asks for is kept without a look at the store;
  0 is for ever."""
  kinds: int = 8
  """Adapters and sets of shared parameters at most; a batch costs their sum. As many
  again may stay for a while that the store has no more."""
  listing_seconds: float = 60.0
  """How long compiling waits for the store's list of its Submodels."""
  retry_seconds: float = 60.0
  """After which a kind that couldn't be compiled is tried again."""
  pause_seconds: float = 0.7
  """Silence between two words that parts segments."""
  segment_seconds: float = 7.0
  """That a segment lasts at most; a decoder with times says its own."""


@dataclasses.dataclass
class LimitsConfig:
  """What one client may ask of a server (`hra.serve.http`)."""

  body_mib: float = 25.0
  """Of a request."""
  bodies_mib: float = 1024.0
  """Of all requests together that are not answered yet."""
  max_seconds: float = 1800.0
  """Of a recording."""
  header_seconds: float = 10.0
  """Within which a request's head has arrived."""
  body_seconds: float = 60.0
  """Within which all of a request has arrived."""
  decode_seconds: float = 20.0
  """Of one recording's decoding."""
  answer_seconds: float = 300.0
  """Within which a request is answered, or given up."""
  requests_per_minute: float = 600.0
  """Of one key; 0 is as many as it likes."""
  burst: int = 64
  """Requests of one key at once, after a pause."""
  at_once: int = 64
  """Requests and streams of one key that are not answered yet; of bytes and of the
  engine's queue it may take half. 0 is as many, and as much, as it likes."""
  connections: int = 512
  decoders: int = 2
  """Processes that decode recordings."""
  decoder_mib: int = 2048
  """Address space of each."""
  decoder_queue: int = 128
  """Recordings that wait for one; what comes on top of them is refused."""


@dataclasses.dataclass
class StreamConfig:
  """What is heard of a recording while it still comes in (`hra.serve.http.stream`)."""

  step_seconds: float = 1.0
  """Of new audio before what is heard so far is told."""
  growth: float = 0.25
  """Part of what was heard that is heard anew with as much on top: the less, the
  more often audio is heard."""
  window_seconds: float = 8.0
  """That are heard anew; what was said before stays as it was told."""


@dataclasses.dataclass
class HttpConfig:
  """Where a server listens, and how it ends (`hra.serve.http`)."""

  host: str = "127.0.0.1"
  port: int = 8000
  """0 is any that is free."""
  hosts: tuple[str, ...] = ()
  """Names that it may be asked by on top of this machine's, such as that of a proxy
  before it. Without any, what listens to other machines may be asked by every name."""
  log_speakers: Literal["hashed", "named"] = "hashed"
  """How the log calls them: by `hra.keys.stable_hash` of the name, which can't be
  read but by who knows the names, or by name."""
  held_mib: float = 1024.0
  """Of samples that are held at once, of all clients."""
  drain_seconds: float = 30.0
  """For requests that run when it is asked to stop."""


@dataclasses.dataclass
class ServeConfig:
  engine: EngineConfig = dataclasses.field(default_factory=EngineConfig)
  limits: LimitsConfig = dataclasses.field(default_factory=LimitsConfig)
  http: HttpConfig = dataclasses.field(default_factory=HttpConfig)
  stream: StreamConfig = dataclasses.field(default_factory=StreamConfig)

"""The configuration's tree: round trips, errors that help, setting by path."""

import dataclasses
import json
import math
from typing import get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hra import config as config_lib
from hra import config_tree
from hra.config import (
  AdapterConfig,
  BackboneConfig,
  Config,
  ConformerConfig,
  DataConfig,
  DecoderConfig,
  EngineConfig,
  EvalConfig,
  FrontendConfig,
  MultistyleConfig,
  OptimizerConfig,
  SearchConfig,
  SpecAugmentConfig,
  SyntheticConfig,
  TrainConfig,
)
from hra.config.sound import RoomsConfig
from hra.config_tree import ConfigError

GROUPS = [
  cls
  for cls in vars(config_lib).values()
  if isinstance(cls, type) and dataclasses.is_dataclass(cls)
]


def _leaves(cls: type, prefix: str = ""):
  for name, hint in get_type_hints(cls).items():
    if dataclasses.is_dataclass(hint):
      yield from _leaves(hint, f"{prefix}{name}.")
    else:
      yield f"{prefix}{name}", hint


def _get(config, path: str):
  for name in path.split("."):
    config = getattr(config, name)
  return config


def _changed() -> Config:
  return Config(
    name="other",
    adapter=AdapterConfig(head="feed_forward", width=7),
    data=DataConfig(bucket_seconds=(1.5, 3.0), source="synthetic"),
    train=TrainConfig(rows=OptimizerConfig(learning_rate=0.25)),
  )


@pytest.mark.parametrize("cls", GROUPS, ids=lambda cls: cls.__name__)
def test_every_default_validates(cls):
  config_tree.validate(cls())


@pytest.mark.parametrize("config", [Config(), _changed()])
def test_a_tree_comes_back_from_json(config):
  text = json.dumps(config_tree.to_dict(config))
  again = config_tree.from_dict(Config, json.loads(text))
  assert again == config
  assert again.data.bucket_seconds == config.data.bucket_seconds


def test_absent_fields_have_their_defaults():
  made = config_tree.from_dict(Config, {"adapter": {"width": 3}})
  assert made == Config(adapter=AdapterConfig(width=3))


@pytest.mark.parametrize(
  ("values", "message"),
  [
    (
      {"adaptr": {}},
      r"c\.adaptr: .* unknown 'adaptr'; did you mean 'adapter'\?",
    ),
    (
      {"train": {"rows": {"warmup": 1}}},
      r"c\.train\.rows\.warmup: .* did you mean 'warmup_steps'\?",
    ),
    ({"adapter": {"width": "3"}}, r"width: expected int, got '3' \(str\)"),
    ({"adapter": {"width": True}}, r"width: expected int, got True \(bool\)"),
    ({"adapter": {"width": 3.0}}, r"width: expected int, got 3.0 \(float\)"),
    ({"backbone": {"causal": 1}}, r"causal: expected bool, got 1 \(int\)"),
    ({"name": None}, r"name: expected str, got None"),
    ({"adapter": [1]}, r"c\.adapter: expected the fields of AdapterConfig"),
    (
      {"adapter": {"family": "hrs"}},
      r"expected one of 'hra', .*, got 'hrs'; did you mean 'hra'\?",
    ),
    ({"adapter": {"family": 1}}, r"family: expected one of 'hra', "),
    (
      {"data": {"bucket_seconds": 1.0}},
      r"bucket_seconds: expected a tuple of float, got 1.0",
    ),
    (
      {"data": {"bucket_seconds": [1.0, "2"]}},
      r"bucket_seconds\[1\]: expected float, got '2'",
    ),
  ],
)
def test_from_dict_names_what_is_wrong(values, message):
  with pytest.raises(ConfigError, match=message) as caught:
    config_tree.from_dict(Config, values, path="c")
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
  "field",
  [path for path, hint in _leaves(Config) if hint is float],
)
def test_floats_are_finite(field, value):
  config = Config()
  *groups, leaf = field.split(".")
  setattr(_get(config, ".".join(groups)), leaf, value)
  with pytest.raises(ConfigError, match=f"config.{field}: .*a finite number"):
    config_tree.validate(config)


def test_a_tuple_of_floats_is_finite():
  with pytest.raises(ConfigError, match=r"bucket_seconds\[1\]: .*finite"):
    config_tree.validate(DataConfig(bucket_seconds=(1.0, math.nan)))


LABEL_SMOOTHING = "backbone.decoder.label_smoothing"


def _pretraining(start="random", **decoder) -> Config:
  return Config(
    train=TrainConfig(mode="pretrain", start=start),
    adapter=AdapterConfig(family="none"),
    data=DataConfig(grouping="pooled"),
    backbone=BackboneConfig(decoder=DecoderConfig(**decoder)),
  )


def _of_heads(heads, *, encoder) -> BackboneConfig:
  transformer = {"subsampling": "half", "subsampling_halvings": 1, "kernel": 15}
  return BackboneConfig(
    encoder=encoder,
    width=64,
    decoder=DecoderConfig(kind="transformer", heads=heads),
    **(transformer if encoder == "transformer" else {}),
  )


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_a_prompted_decoder_divides_the_width_among_its_heads(heads):
  config_tree.validate(_of_heads(heads, encoder="transformer"))


@pytest.mark.parametrize("kind", ["ctc", "rnnt", "tdt", "las", "transformer"])
def test_a_run_says_how_any_backbone_s_decoder_trains(kind):
  """Whose kind the folder says, and not the configuration."""
  own = {"label_smoothing": 0.1, "sigma": 0.05, "chunk": 2, "language": "de"}
  decoder = DecoderConfig(kind=kind, **own)
  config_tree.validate(Config(backbone=BackboneConfig(decoder=decoder)))
  config_tree.validate(_pretraining("backbone", kind=kind, **own))


@pytest.mark.parametrize(
  ("config", "field"),
  [
    (BackboneConfig(width=64, heads=5), "heads"),
    (BackboneConfig(heads=0), "heads"),
    (BackboneConfig(layers=0), "layers"),
    (BackboneConfig(encoder="lstm", width=63), "width"),
    (BackboneConfig(encoder="lstm", kernel=5), "kernel"),
    (
      BackboneConfig(
        encoder="lstm", conformer=ConformerConfig(norm_bias=False)
      ),
      "conformer",
    ),
    (BackboneConfig(subsampling_kernel=5), "subsampling_kernel"),
    (BackboneConfig(subsampling_halvings=3), "subsampling_halvings"),
    (
      BackboneConfig(subsampling="separable", subsampling_halvings=0),
      "subsampling_halvings",
    ),
    (BackboneConfig(subsampling="projection"), "subsampling_halvings"),
    (
      BackboneConfig(
        subsampling="projection",
        subsampling_halvings=0,
        subsampling_channels=8,
      ),
      "subsampling_channels",
    ),
    (BackboneConfig(subsampling="separable", causal=True), "causal"),
    (
      BackboneConfig(
        causal=True, conformer=ConformerConfig(causal_convolution=True)
      ),
      "conformer.causal_convolution",
    ),
    (
      BackboneConfig(conformer=ConformerConfig(distance_left=3)),
      "conformer.distance_left",
    ),
    (ConformerConfig(norm_epsilon=0.0), "norm_epsilon"),
    (ConformerConfig(feed_forward_weights=(1.0,)), "feed_forward_weights"),
    (BackboneConfig(decoder=DecoderConfig(joint=64)), "decoder.joint"),
    (_of_heads(3, encoder="transformer"), "decoder.heads"),
    (_of_heads(3, encoder="conformer"), "decoder.heads"),
    (DecoderConfig(kind="las", attention=9, heads=2), "heads"),
    (_pretraining(kind="rnnt", label_smoothing=0.1), LABEL_SMOOTHING),
    (_pretraining(kind="rnnt", sigma=0.1), "backbone.decoder.sigma"),
    (DecoderConfig(kind="rnnt", context=2), "context"),
    (DecoderConfig(kind="rnnt", durations=(0, 1)), "durations"),
    (DecoderConfig(kind="tdt", durations=(0, 1, 1)), "durations"),
    (DecoderConfig(kind="tdt", durations=(0,)), "durations"),
    (DecoderConfig(kind="tdt", durations=(-1, 1)), "durations"),
    (DecoderConfig(kind="tdt", durations=()), "durations"),
    (DecoderConfig(kind="tdt", most_labels=0), "most_labels"),
    (DecoderConfig(joint_activation="relu"), "joint_activation"),
    (
      DecoderConfig(kind="rnnt", prediction="stateless", embedding=8),
      "embedding",
    ),
    (DecoderConfig(kind="las", label_smoothing=1.0), "label_smoothing"),
    (TrainConfig(weight_noise=0.1), "weight_noise"),
    (OptimizerConfig(hold_steps=-1), "hold_steps"),
    (AdapterConfig(width=0), "width"),
    (AdapterConfig(alpha=2.0), "alpha"),
    (AdapterConfig(family="residual", head="feed_forward"), "head"),
    (OptimizerConfig(learning_rate=-1.0), "learning_rate"),
    (OptimizerConfig(weight_decay=-1.0), "weight_decay"),
    (OptimizerConfig(b1=1.0), "b1"),
    (OptimizerConfig(b2=-0.1), "b2"),
    (DataConfig(task_shares="s.json"), "task_shares"),
    (
      DataConfig(grouping="pooled", task_shares="s.json", temperature=1.0),
      "temperature",
    ),
    (DataConfig(multistyle=MultistyleConfig(part=3.0)), "multistyle.part"),
    (MultistyleConfig(reverb_probability=-0.1), "reverb_probability"),
    (MultistyleConfig(snr_low=31.0), "snr_low"),
    (MultistyleConfig(snr="gaussian", snr_mean=31.0), "snr_mean"),
    (MultistyleConfig(snr_deviation=0.0), "snr_deviation"),
    (MultistyleConfig(noise="files"), "noise_files"),
    (MultistyleConfig(noise="coloured", noise_files="n"), "noise_files"),
    (MultistyleConfig(reverb="files"), "responses"),
    (MultistyleConfig(reverb="rooms", responses="r"), "responses"),
    (
      MultistyleConfig(reverb="rooms", reverb_probability=0.5),
      "reverb_probability",
    ),
    (MultistyleConfig(parts="p.json"), "parts"),
    (MultistyleConfig(noise="coloured", noises=0), "noises"),
    (MultistyleConfig(rooms=RoomsConfig(count=0)), "rooms.count"),
    (RoomsConfig(size_low=(3.0, 3.0)), "size_low"),
    (RoomsConfig(size_low=()), "size_low"),
    (RoomsConfig(size_high=(9.0, 9.0, 1.0)), "size_high"),
    (RoomsConfig(size_low=(3.0, 8.5, 2.5)), "size_low"),
    (RoomsConfig(rt60_high=0.1), "rt60_low"),
    (RoomsConfig(rt60_low=0.15), "rt60_low"),
    (RoomsConfig(distance_low=3.5), "distance_low"),
    (RoomsConfig(distance_low=1.7), "distance_low"),
    (Config(seed=-1), "seed"),
    (Config(train=TrainConfig(mode="pretrain")), "adapter.family"),
    (
      Config(
        train=TrainConfig(mode="pretrain"), adapter=AdapterConfig(family="none")
      ),
      "data.grouping",
    ),
    (
      Config(
        train=TrainConfig(mode="pretrain"),
        adapter=AdapterConfig(family="none"),
        data=DataConfig(grouping="pooled"),
        backbone=BackboneConfig(param_dtype="bfloat16"),
      ),
      "backbone.param_dtype",
    ),
    (DataConfig(speed_low=1.1, speed_high=1.0), "speed_low"),
    (DataConfig(threads=0), "threads"),
    (TrainConfig(keep=0), "keep"),
    (EvalConfig(confidence=1.0), "confidence"),
    (EvalConfig(bootstrap=99), "bootstrap"),
    (SearchConfig(beam=-1), "beam"),
    (SearchConfig(language_model="lm"), "language_model"),
    (SearchConfig(length_bonus=0.5), "length_bonus"),
    (SyntheticConfig(snr_low=50.0), "snr_low"),
    (FrontendConfig(fft_length=399), "fft_length"),
    (FrontendConfig(high_hz=8001.0), "high_hz"),
    (FrontendConfig(low_hz=8000.0), "high_hz"),
    (SpecAugmentConfig(probability=1.5), "probability"),
    (SpecAugmentConfig(freq_masks=1, freq_width=0), "freq_width"),
    (SpecAugmentConfig(time_masks=1, time_width=0), "time_width"),
    (SpecAugmentConfig(time_masks=1, time_size=0.1), "time_width"),
    (
      SpecAugmentConfig(
        time_masks=1, time_width=0, time_size=0.2, time_ratio=0.1
      ),
      "time_ratio",
    ),
    (SpecAugmentConfig(time_multiplicity=0.1), "time_masks"),
    (EngineConfig(load_seconds=0.0), "load_seconds"),
    (EngineConfig(sweep_seconds=-1.0), "sweep_seconds"),
    (SpecAugmentConfig(fill="nois"), "fill"),  # type: ignore[arg-type]
  ],
)
def test_validate_refuses_what_cannot_stand(config, field):
  with pytest.raises(ConfigError, match=rf"^here\.{field}: expected "):
    config_tree.validate(config, path="here")


def test_validate_looks_into_groups_and_refuses_other_groups():
  with pytest.raises(ConfigError, match=r"config\.train\.rows\.clip_norm"):
    config_tree.validate(
      Config(train=TrainConfig(rows=OptimizerConfig(clip_norm=-1.0)))
    )
  for wrong in (None, DataConfig(), {"width": 3}):
    with pytest.raises(ConfigError, match=r"adapter: expected AdapterConfig"):
      config_tree.validate(Config(adapter=wrong))  # type: ignore[arg-type]


def test_one_field_is_replaced_in_a_copy():
  config = Config()
  changed = config_tree.replaced(config, "train.rows.warmup_steps", 7)
  assert changed.train.rows.warmup_steps == 7
  assert config == Config()
  changed.train.rows.warmup_steps = 0
  assert changed == config


@pytest.mark.parametrize(
  ("assignment", "value"),
  [
    ("seed=7", 7),
    ("seed=-7", -7),
    ("name=a=b, c", "a=b, c"),
    ("name=", ""),
    ("adapter.width=64", 64),
    ("adapter.head=feed_forward", "feed_forward"),
    ("train.rows.learning_rate=3e-4", 3e-4),
    ("train.rows.learning_rate=1", 1.0),
    ("backbone.causal=true", True),
    ("backbone.causal=1", True),
    ("backbone.causal=False", False),
    ("data.bucket_seconds=1.5,3", (1.5, 3.0)),
    ("data.bucket_seconds=(1.5, 3)", (1.5, 3.0)),
    ("data.bucket_seconds=[2]", (2.0,)),
    ("data.bucket_seconds=(2,)", (2.0,)),
    ("data.bucket_seconds=2", (2.0,)),
    ("data.bucket_seconds=()", ()),
    ("data.bucket_seconds=", ()),
  ],
)
def test_override_sets_one_field(assignment, value):
  config = Config(data=DataConfig(bucket_seconds=(9.0,)), name="before")
  before = config_tree.to_dict(config)
  config_tree.override(config, assignment)
  field = assignment.split("=")[0]
  assert _get(config, field) == value
  assert type(_get(config, field)) is type(value)
  for path, _ in _leaves(Config):
    if path != field:
      part = before
      for name in path.split("."):
        part = part[name]
      assert _get(config, path) == part


@pytest.mark.parametrize(("field", "hint"), list(_leaves(Config)))
def test_every_field_can_be_set_to_what_it_is(field, hint):
  config = Config()
  value = _get(config, field)
  text = ",".join(map(str, value)) if get_origin(hint) is tuple else value
  config_tree.override(config, f"{field}={text}")
  assert config == Config()


@pytest.mark.parametrize(
  ("assignment", "message"),
  [
    ("adapter.widht=3", r"^--c\.adapter\.widht: .*did you mean 'width'\?"),
    ("adaptr.width=3", r"^--c\.adaptr\.width: .*did you mean 'adapter'\?"),
    ("=3", r"unknown ''"),
    ("adapter.=3", r"unknown ''"),
    ("adapter.width", r"^--c\.adapter\.width: expected =VALUE"),
    (
      "adapter=3",
      r"one of its fields \(family, .* such as --c\.adapter\.family=",
    ),
    ("train.rows=3", r"one of its fields \(learning_rate, "),
    ("adapter.width.bits=3", r"expected nothing below 'width', .* got bits"),
    ("seed.a.b=3", r"expected nothing below 'seed', .* got a\.b"),
    ("adapter.width=wide", r"expected int, got 'wide'"),
    ("adapter.width=3.0", r"expected int, got '3.0'"),
    ("train.save_seconds=soon", r"expected float, got 'soon'"),
    ("train.save_seconds=nan", r"expected a finite number, got nan"),
    ("train.save_seconds=1e999", r"expected a finite number, got inf"),
    ("backbone.causal=yes", r"expected bool, got 'yes'"),
    (
      "adapter.head=feedforward",
      r"one of 'linear', 'feed_forward', .*did you mean 'feed_forward'\?",
    ),
    ("data.bucket_seconds=1,x", r"bucket_seconds\[1\]: expected float"),
    ("data.bucket_seconds=1,,2", r"bucket_seconds\[1\]: expected float"),
    ("data.bucket_seconds=inf", r"expected a finite number"),
  ],
)
def test_override_refuses_and_changes_nothing(assignment, message):
  config = Config()
  with pytest.raises(ConfigError, match=message) as caught:
    config_tree.override(config, assignment, path="--c")
  assert "\n" not in str(caught.value)
  assert config == Config()


@pytest.mark.parametrize(
  ("text", "tasks"),
  [
    ("[Jane (F01)]", ("Jane (F01)",)),
    ("Jane (F01)", ("Jane (F01)",)),
    ("(F01) Jane, (F02)", ("(F01) Jane", "(F02)")),
    ("[(a),(b)]", ("(a)", "(b)")),
    ("(a),(b)", ("(a)", "(b)")),
    ("([a],)", ("[a]",)),
    ('["Doe, Jane", b]', ("Doe, Jane", "b")),
    ('"Doe, Jane"', ("Doe, Jane",)),
    ('"a ""b"""', ('a "b"',)),
    ('["]",a]', ("]", "a")),
    ('a "b" c', ('a "b" c',)),
    ('[""]', ("",)),
  ],
)
def test_names_keep_their_brackets_and_in_quotes_their_commas(text, tasks):
  config = Config()
  config_tree.override(config, f"data.tasks={text}")
  assert config.data.tasks == tasks


@given(st.lists(st.text() | st.text(' ,"[]()a\n', max_size=6)))
def test_what_is_written_is_read_as_it_was(tasks):
  config = Config()
  config_tree.override(config, f"data.tasks={config_tree.written(tasks)}")
  assert config.data.tasks == tuple(tasks)


@pytest.mark.parametrize(
  ("adapter", "owned"),
  [
    (AdapterConfig(family="full"), "a whole backbone"),
    (AdapterConfig(family="none"), "nothing"),
    (AdapterConfig(heads="shared"), "nothing"),
  ],
)
def test_an_embedding_makes_no_row_of_a_whole_backbone_or_of_nothing(
  adapter, owned
):
  config = Config(adapter=adapter)
  config_tree.validate(config)
  config.space.kind = "embedding"
  with pytest.raises(ConfigError, match=rf"config\.space\.kind: .* {owned}"):
    config_tree.validate(config)
  config_tree.validate(Config(space=config.space))


def test_the_same_name_twice_in_a_path_is_walked():
  """A group and its field may share a name."""

  @dataclasses.dataclass
  class Inner:
    data: int = 0

  @dataclasses.dataclass
  class Outer:
    data: Inner = dataclasses.field(default_factory=Inner)

  outer = Outer()
  config_tree.override(outer, "data.data=3")
  assert outer.data.data == 3


def test_nearest_is_the_closest_spelling():
  assert config_tree.nearest("lerning_rate", ["width", "learning_rate"]) == (
    "learning_rate"
  )
  assert config_tree.nearest("zzz", ["only"]) == "only"

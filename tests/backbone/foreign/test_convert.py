"""A checkpoint's folder -> a backbone's: what comes back, and what is refused."""

import json
import shutil
import tracemalloc

import numpy as np
import originals
import pytest
import safetensors.numpy
from originals import torch

from hra.backbone import store
from hra.backbone.foreign import checkpoint
from hra.backbone.foreign.convert import convert
from hra.errors import InputError
from hra.sharding import named_leaves


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """Family -> a checkpoint's folder."""
  return {
    family: originals.save(
      tmp_path_factory.mktemp("original") / family,
      family,
      originals.model(family),
    )
    for family in originals.ALL
  }


@pytest.fixture
def folder(tmp_path, folders):
  """A copy of LASR's that a test may spoil."""
  return shutil.copytree(folders["lasr"], tmp_path / "original")


def _tensors(folder):
  return dict(safetensors.numpy.load_file(folder / "model.safetensors"))


@pytest.mark.parametrize("family", originals.ALL)
def test_the_folder_is_a_backbone(family, folders, tmp_path):
  made = convert(str(folders[family]), tmp_path / "made")
  loaded = store.load(tmp_path / "made")
  expected, found = originals.converted(folders[family])
  assert loaded.fingerprint == made.fingerprint
  assert loaded.config == found.config == made.config
  assert loaded.frontend == found.frontend
  assert loaded.tokenizer.vocabulary == loaded.config.vocabulary
  assert loaded.about["converted_from"] == made.architecture
  assert loaded.about["blank"] == originals.blank(originals.model(family))
  theirs = dict(named_leaves(expected))
  total = 0
  for path, leaf in named_leaves(loaded.module):
    np.testing.assert_array_equal(leaf, theirs[path], err_msg=path)
    total += leaf.size
  assert total == made.parameters
  again = store.save(
    tmp_path / "again",
    loaded.module,
    frontend=loaded.frontend,
    tokenizer=loaded.tokenizer,
    about={},
  )
  assert again == made.fingerprint


def test_every_tensor_of_theirs_has_one_rule(folders):
  for family in originals.ALL:
    found = checkpoint.read(str(folders[family]))
    kind = checkpoint.FAMILIES[found.architecture]
    ignored = [n for n in found.source.names if n.endswith(kind.ignorable)]
    assert len(ignored) == (1 if family == "w2v_bert" else 2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_widened_or_kept(folders, tmp_path, dtype):
  model = originals.model("parakeet", seed=3).to(getattr(torch, dtype))
  folder = shutil.copytree(folders["parakeet"], tmp_path / "half")
  model.save_pretrained(folder)
  widened = convert(str(folder), tmp_path / "wide")
  kept = convert(str(folder), tmp_path / "kept", param_dtype="bfloat16")
  assert widened.config.param_dtype == "float32"
  assert kept.config.param_dtype == "bfloat16"
  path = "layers/attention/query/kernel"
  wide, narrow = (
    dict(named_leaves(store.load(tmp_path / name).module))[path]
    for name in ("wide", "kept")
  )
  weight = model.encoder.layers[1].self_attn.q_proj.weight.detach()
  np.testing.assert_array_equal(wide[1], weight.float().numpy().T)
  assert narrow.dtype == "bfloat16"
  np.testing.assert_array_equal(narrow, wide.astype("bfloat16"))


def test_shards_are_one_checkpoint(folders, tmp_path):
  whole = convert(str(folders["w2v_bert"]), tmp_path / "whole")
  folder = shutil.copytree(folders["w2v_bert"], tmp_path / "sharded")
  (folder / "model.safetensors").unlink()
  originals.model("w2v_bert").save_pretrained(folder, max_shard_size="8KB")
  assert len(list(folder.glob("*.safetensors"))) > 2
  assert convert(str(folder), tmp_path / "made") == whole
  shard = min(folder.glob("*.safetensors"))
  shard.unlink()
  _refused(folder, tmp_path, shard.name)


def test_a_folded_batch_norm_is_exact(folders):
  model = originals.model("lasr")
  backbone, _ = originals.converted(folders["lasr"])
  conv = model.encoder.layers[1].conv
  x = torch.randn(2, 16, 9)
  with torch.no_grad():
    expected = conv.norm(conv.depthwise_conv(x))[0].numpy().T
  depthwise = backbone.layers.convolution.depthwise
  taps, bias = depthwise.kernel[...][1], depthwise.bias[...][1]
  padded = np.pad(x[0].numpy().T, ((1, 2), (0, 0)))
  found = bias + sum(taps[k] * padded[k : k + 9] for k in range(4))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)


def test_progress_ends_at_all(folders, tmp_path):
  told = []
  made = convert(
    str(folders["lasr"]), tmp_path / "made", progress=lambda *x: told.append(x)
  )
  assert told[-1] == (made.parameters, made.parameters)
  assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_memory_holds_one_tensor_at_a_time(folders, tmp_path):
  """What is allocated while 16 layers are written is a part of what is written."""
  family = "w2v_bert"
  model = originals.model(
    family, hidden_size=96, intermediate_size=384, num_hidden_layers=16
  )
  folder = originals.save(tmp_path / "large", family, model)
  checkpoint.read(str(folder))  # what is traced and cached once is not counted
  tracemalloc.start()
  made = convert(str(folder), tmp_path / "made")
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert made.parameters > 2e6
  assert peak < 0.5 * 4 * made.parameters


def _refused(folder, tmp_path, *mentioned):
  with pytest.raises(InputError) as refused:
    convert(str(folder), tmp_path / "out")
  message = str(refused.value)
  assert "\n" not in message
  assert str(folder) in message
  for each in mentioned:
    assert each in message, message
  assert not (tmp_path / "out" / "config.json").exists()
  assert not list((tmp_path / "out").glob(".*"))


def _config(**changes):
  def spoil(folder):
    originals.edit_json(folder / "config.json", lambda d: d.update(changes))

  return spoil


def _encoder(**changes):
  def spoil(folder):
    originals.edit_json(
      folder / "config.json", lambda d: d["encoder_config"].update(changes)
    )

  return spoil


def _retensored(edit):
  def spoil(folder):
    tensors = _tensors(folder)
    edit(tensors)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")

  return spoil


def _truncate(folder):
  path = folder / "model.safetensors"
  path.write_bytes(path.read_bytes()[:-9])


def _pickled(folder):
  (folder / "model.safetensors").unlink()
  (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")


def _without(name):
  return lambda folder: (folder / name).unlink()


def _extracted(**changes):
  def spoil(folder):
    originals.edit_json(
      folder / "preprocessor_config.json", lambda d: d.update(changes)
    )

  return spoil


Q = "encoder.layers.1.self_attn.q_proj.weight"
SPOILT = {
  "no config": (_without("config.json"), ("config.json", "no such file")),
  "config is no JSON": (
    lambda f: (f / "config.json").write_text("{"),
    ("config.json", "JSON"),
  ),
  "another architecture": (
    _config(architectures=["HubertForCTC"]),
    ("LasrForCTC, ParakeetForCTC", "Hubert"),
  ),
  "no head": (
    _config(architectures=["Wav2Vec2BertModel"]),
    ("Wav2Vec2BertModel", "without a decoder"),
  ),
  "no architecture": (_config(architectures=None), ("architectures", "None")),
  "another rope": (
    _encoder(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4}),
    ("rope_type", "'yarn'"),
  ),
  "another theta": (
    _encoder(rope_parameters={"rope_theta": 5e5}),
    ("rope_theta", "500000"),
  ),
  "grouped queries": (
    _encoder(num_key_value_heads=1),
    ("num_key_value_heads", "expected 2, got 1"),
  ),
  "another activation": (
    _encoder(hidden_act="mish"),
    ("hidden_act", "'mish'", "'gelu_new'"),
  ),
  "another stride": (
    _encoder(subsampling_conv_stride=3),
    ("subsampling_conv_stride", "got 3"),
  ),
  "a wrong type": (_encoder(hidden_size="16"), ("hidden_size", "'16'")),
  "heads that don't divide": (
    _encoder(num_attention_heads=3, num_key_value_heads=3),
    ("heads",),
  ),
  "no such blank": (_config(pad_token_id=8), ("pad_token_id", "got 8")),
  "a missing tensor": (
    _retensored(lambda t: t.pop(Q)),
    (Q, "no such tensor"),
  ),
  "a missing layer": (
    _encoder(num_hidden_layers=3),
    ("encoder.layers.2", "no such tensor"),
  ),
  "an extra tensor": (
    _retensored(lambda t: t.update(extra=np.zeros((2, 3), np.float32))),
    ("extra", "(2, 3)"),
  ),
  "a bias too many": (
    _retensored(
      lambda t: t.update(
        {Q.replace("weight", "bias"): np.zeros(16, np.float32)}
      )
    ),
    ("q_proj.bias",),
  ),
  "a misshapen tensor": (
    _retensored(lambda t: t.update({Q: np.zeros((16, 8), np.float32)})),
    (Q, "(16, 16)", "(16, 8)"),
  ),
  "integers": (
    _retensored(lambda t: t.update({Q: np.zeros((16, 16), np.int8)})),
    (Q, "I8"),
  ),
  "truncated weights": (_truncate, ("model.safetensors",)),
  "only pickles": (_pickled, ("pytorch_model.bin", "save_pretrained")),
  "no weights": (_without("model.safetensors"), ("model.safetensors",)),
  "no front end": (
    _without("preprocessor_config.json"),
    ("preprocessor_config.json",),
  ),
  "another front end": (
    _extracted(feature_extractor_type="WhisperFeatureExtractor"),
    ("LasrFeatureExtractor", "Whisper"),
  ),
  "another rate": (_extracted(sampling_rate=8000), ("sampling_rate", "8000")),
  "a front end of other bins": (
    _extracted(feature_size=20),
    ("subsampler.dense_0.weight", "(16, 20)"),
  ),
  "no tokenizer": (_without("tokenizer.json"), ("tokenizer.json",)),
  "no settings": (
    _without("tokenizer_config.json"),
    ("tokenizer_config.json",),
  ),
  "no blank": (
    lambda f: originals.edit_json(
      f / "tokenizer_config.json", lambda d: d.update(pad_token="<blank>")
    ),
    ("tokenizer.json", "<blank>"),
  ),
  "another blank": (
    lambda f: originals.edit_json(
      f / "tokenizer_config.json", lambda d: d.update(pad_token="</s>")
    ),
    ("pad_token", "id 6"),
  ),
  "a tokenizer that is none": (
    lambda f: (f / "tokenizer.json").write_text("{}"),
    ("tokenizer.json",),
  ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_folder_is_refused_by_name_in_one_line(folder, tmp_path, name):
  spoil, mentioned = SPOILT[name]
  spoil(folder)
  _refused(folder, tmp_path, *mentioned)


def test_a_tokenizer_that_does_not_fit(folder, tmp_path):
  def longer(told):
    told["model"]["vocab"].append(["d", -3.0])

  originals.edit_json(folder / "tokenizer.json", longer)
  _refused(folder, tmp_path, "tokenizer.json", "8 labels", "one of 9")


@pytest.mark.parametrize(
  ("changes", "mentioned"),
  [
    ({"add_adapter": True}, "add_adapter"),
    ({"position_embeddings_type": "rotary"}, "position_embeddings_type"),
    ({"position_embeddings_type": None}, "position_embeddings_type"),
    ({"use_intermediate_ffn_before_adapter": True}, "intermediate_ffn"),
  ],
)
def test_options_of_w2v_bert_without_a_form_here(
  folders, tmp_path, changes, mentioned
):
  folder = shutil.copytree(folders["w2v_bert"], tmp_path / "original")
  originals.edit_json(folder / "config.json", lambda d: d.update(changes))
  _refused(folder, tmp_path, mentioned)


@pytest.mark.parametrize(
  ("changes", "mentioned"),
  [
    ({"durations": [0, 1, 1]}, ("durations", "different")),
    ({"durations": []}, ("durations",)),
    ({"durations": [0, 1]}, ("joint.head.weight", "(10, 12)", "(13, 12)")),
    ({"blank_token_id": 8}, ("blank_token_id", "got 8")),
    ({"blank_token_id": 2}, ("id 2", "blank_token_id", "id 7")),
    ({"hidden_act": "mish"}, ("hidden_act", "mish")),
    ({"num_decoder_layers": 3}, ("lstm.weight_ih_l2",)),
    ({"num_decoder_layers": 1}, ("l1", "no such tensor")),
    ({"max_symbols_per_step": 0}, ("most_labels",)),
  ],
)
def test_options_of_transducers_without_a_form_here(
  folders, tmp_path, changes, mentioned
):
  folder = shutil.copytree(folders["parakeet_tdt"], tmp_path / "original")
  originals.edit_json(folder / "config.json", lambda d: d.update(changes))
  _refused(folder, tmp_path, *mentioned)


def test_a_pickle_is_never_opened(folder, tmp_path, monkeypatch):
  _pickled(folder)
  monkeypatch.setattr(
    torch, "load", lambda *_, **__: pytest.fail("it was unpickled")
  )
  _refused(folder, tmp_path, "may run any code")


def test_an_index_may_not_name_files_elsewhere(folder, tmp_path):
  (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
  index = {"weight_map": {Q: "../model.safetensors"}}
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))
  _refused(folder, tmp_path, "weight_map")


def test_a_backbone_is_never_overwritten(folders, tmp_path):
  convert(str(folders["lasr"]), tmp_path / "made")
  with pytest.raises(InputError, match="a new folder"):
    convert(str(folders["lasr"]), tmp_path / "made")


def test_a_bucket_is_copied_first():
  with pytest.raises(InputError, match="copy the checkpoint here"):
    checkpoint.read("gs://bucket/model")


def test_the_processor_of_newer_versions_serves_too(folder, tmp_path):
  told = json.loads((folder / "preprocessor_config.json").read_text())
  (folder / "preprocessor_config.json").rename(folder / "old.json")
  (folder / "processor_config.json").write_text(
    json.dumps({"feature_extractor": told, "processor_class": "LasrProcessor"})
  )
  assert checkpoint.read(str(folder)).frontend.num_mels == originals.MELS

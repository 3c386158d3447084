"""The official client of OpenAI against a live server: every format and error."""

import asyncio

import fake_engine as fake
import live_server as live
import openai
import pytest

WAVE = live.wave()
FILE = ("speech.wav", live.wav(WAVE))
ANNA = fake.text_of("anna", WAVE)


@pytest.fixture(scope="module")
def engine():
  return fake.Engine()


@pytest.fixture(scope="module")
def running(engine):
  with live.serving(live.service(engine, language="en")) as server:
    yield server


@pytest.fixture(scope="module")
def client(running):
  with openai.OpenAI(
    base_url=f"{running.url}/v1", api_key="any", max_retries=0
  ) as made:
    yield made


def _create(client, **asked):
  asked = {"model": "tiny:anna", "file": FILE, **asked}
  return client.audio.transcriptions.create(**asked)


def test_json(client):
  found = _create(client)
  assert found.text == ANNA
  assert found.usage.seconds == 1
  assert found.hra == {
    "submodel": "anna",
    "applied": "submodel",
    "version": 3,
    "fingerprint": "ab12",
    "reason": None,
    "seconds": {"queued": 0.001, "loading": 0.002, "computing": 0.003},
  }


@pytest.mark.parametrize("task", fake.SPEAKERS)
def test_each_speaker_is_answered_by_their_own(client, task):
  found = _create(client, model=f"tiny:{task}")
  assert found.text == fake.text_of(task, WAVE)
  assert found.hra["submodel"] == task


def test_the_backbone_alone(client):
  found = _create(client, model="tiny")
  assert found.text == fake.text_of(None, WAVE)
  assert found.hra["applied"] == "backbone"
  assert found.hra["reason"] == "asked"


def test_verbose_json(client):
  found = _create(
    client,
    response_format="verbose_json",
    timestamp_granularities=["word", "segment"],
  )
  assert found.text == ANNA
  assert found.language == "en"
  assert found.duration == 0.5
  assert [each.word for each in found.words] == ["anna", "said"]
  assert (found.words[1].start, found.words[1].end) == (0.25, 0.5)
  first, second = found.segments
  assert (first.id, first.start, first.end) == (0, 0.0, 0.25)
  assert f"{first.text} {second.text}" == ANNA
  assert first.avg_logprob is None
  assert found.hra["version"] == 3


def test_verbose_json_has_segments_unless_words_alone_are_asked(client):
  found = _create(client, response_format="verbose_json")
  assert found.words is None
  assert len(found.segments) == 2
  found = _create(
    client,
    response_format="verbose_json",
    timestamp_granularities=["word"],
  )
  assert len(found.words) == 2
  assert found.segments is None


def test_text(client):
  assert _create(client, response_format="text") == f"{ANNA}\n"


def test_srt(client):
  _, rest = ANNA.split(" ", 1)
  assert _create(client, response_format="srt") == (
    "1\n00:00:00,000 --> 00:00:00,250\nanna\n\n"
    f"2\n00:00:00,250 --> 00:00:00,500\n{rest}\n"
  )


def test_vtt_escapes_what_is_markup(client):
  _, rest = ANNA.split(" ", 1)
  escaped = rest.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
  assert _create(client, response_format="vtt") == (
    "WEBVTT\n\n00:00:00.000 --> 00:00:00.250\nanna\n\n"
    f"00:00:00.250 --> 00:00:00.500\n{escaped}\n"
  )


@pytest.mark.parametrize("form", ["json", "text", "verbose_json", "srt", "vtt"])
def test_each_format_has_the_receipt_in_its_headers(client, form):
  raw = client.audio.transcriptions.with_raw_response.create(
    model="tiny:zoë & co", file=FILE, response_format=form
  )
  assert raw.headers["x-hra-submodel"] == "zo%C3%AB%20%26%20co"
  assert raw.headers["x-hra-applied"] == "submodel"
  assert raw.headers["x-hra-version"] == "3"
  assert raw.headers["x-hra-fingerprint"] == "ab12"
  assert "x-hra-reason" not in raw.headers
  assert "loading;dur=2.0" in raw.headers["server-timing"]
  assert raw.request_id


@pytest.mark.parametrize(
  ("form", "kind"),
  [
    ("json", "application/json"),
    ("text", "text/plain; charset=utf-8"),
    ("srt", "application/x-subrip; charset=utf-8"),
    ("vtt", "text/vtt; charset=utf-8"),
  ],
)
def test_types_of_content(client, form, kind):
  raw = client.audio.transcriptions.with_raw_response.create(
    model="tiny", file=FILE, response_format=form
  )
  assert raw.headers["content-type"] == kind


def test_streaming(client):
  events = list(_create(client, stream=True))
  assert [each.type for each in events] == [
    "transcript.text.delta",
    "transcript.text.delta",
    "transcript.text.done",
  ]
  assert "".join(each.delta for each in events[:-1]) == ANNA
  assert events[-1].text == ANNA
  assert events[-1].hra["version"] == 3


def test_streaming_goes_on_behind_a_slow_engine(client, engine, monkeypatch):
  monkeypatch.setattr("hra.serve.http.events.HEAD_SECONDS", 0.05)
  monkeypatch.setattr("hra.serve.http.events._ALIVE_SECONDS", 0.05)
  engine.gate.clear()
  try:
    events = iter(_create(client, stream=True))
  finally:
    engine.gate.set()
  assert [each.type for each in events][-1] == "transcript.text.done"


def test_words_are_told_as_soon_as_they_are_certain(client, engine):
  first, second = ANNA.split(" ")[:2]
  engine.told = [len(first), len(f"{first} {second}")]
  engine.gate.clear()
  try:
    events = iter(_create(client, stream=True))
    early = [next(events)]
    while "".join(each.delta for each in early) != f"{first} {second}":
      early.append(next(events))
    engine.gate.set()
    *late, done = list(events)
  finally:
    engine.gate.set()
    engine.told = []
  assert [each.type for each in [*early, *late]] == (
    ["transcript.text.delta"] * (len(early) + 1)
  )
  assert "".join(each.delta for each in [*early, *late]) == ANNA
  assert (done.type, done.text) == ("transcript.text.done", ANNA)
  assert done.hra["version"] == 3


def test_a_text_that_is_certain_is_all_there_is(client, engine):
  engine.told = [len(ANNA)]
  engine.gate.clear()
  try:
    events = iter(_create(client, stream=True))
    assert next(events).delta == ANNA
    engine.gate.set()
    (done,) = events
  finally:
    engine.gate.set()
    engine.told = []
  assert done.text == ANNA


def test_a_text_that_was_told_wrongly_is_no_answer(client, engine, monkeypatch):
  engine.told = [5]
  engine.gate.clear()
  try:
    events = iter(_create(client, stream=True))
    assert next(events).delta == ANNA[:5]
    monkeypatch.setattr(fake, "text_of", lambda *_: "another text")
    engine.gate.set()
    with pytest.raises(openai.APIError) as caught:
      list(events)
  finally:
    engine.gate.set()
    engine.told = []
  assert caught.value.code == "server_error"


def test_an_error_behind_the_head_is_an_event(client, engine, monkeypatch):
  monkeypatch.setattr("hra.serve.http.events.HEAD_SECONDS", 0.05)
  engine.gate.clear()
  try:
    events = iter(_create(client, model="tiny:nemo", stream=True))
  finally:
    engine.gate.set()
  with pytest.raises(openai.APIError) as caught:
    list(events)
  assert caught.value.code == "model_not_found"


def test_an_error_before_the_head_has_its_status(client):
  with pytest.raises(openai.NotFoundError):
    _create(client, model="tiny:nemo", stream=True)


def test_async_client(running):
  async def run():
    async with openai.AsyncOpenAI(
      base_url=f"{running.url}/v1", api_key="any", max_retries=0
    ) as client:
      texts = await asyncio.gather(
        *(
          client.audio.transcriptions.create(
            model=f"tiny:{task}", file=FILE, response_format="text"
          )
          for task in fake.SPEAKERS
        )
      )
      stream = await client.audio.transcriptions.create(
        model="tiny:anna", file=FILE, stream=True
      )
      return texts, [event async for event in stream]

  texts, events = asyncio.run(run())
  assert texts == [f"{fake.text_of(each, WAVE)}\n" for each in fake.SPEAKERS]
  assert events[-1].text == ANNA


def test_models(client):
  listed = [model.id for model in client.models.list()]
  assert listed == ["tiny", *(f"tiny:{each}" for each in sorted(fake.SPEAKERS))]
  for name in listed:
    found = client.models.retrieve(name)
    assert (found.id, found.object) == (name, "model")
    assert found.created == 1_700_000_000


@pytest.mark.parametrize("name", ["tiny:nemo", "other", "tiny:", "anna"])
def test_models_that_there_are_not(client, name):
  with pytest.raises(openai.NotFoundError) as caught:
    client.models.retrieve(name)
  told = caught.value.body
  with pytest.raises(openai.NotFoundError) as caught:
    _create(client, model=name)
  assert caught.value.body == told
  assert told["code"] == "model_not_found"
  assert told["param"] == "model"


def test_an_unknown_speaker_may_be_answered_by_the_backbone(client):
  found = _create(client, model="tiny:nemo", extra_body={"fallback": True})
  assert found.text == fake.text_of(None, WAVE)
  assert found.hra["submodel"] == "nemo"
  assert found.hra["applied"] == "backbone"
  assert found.hra["reason"] == "unknown"


def test_the_guard_is_the_engines_unless_it_is_switched_off(client, engine):
  _create(client)
  assert engine.asked[-1].guard
  _create(client, extra_body={"guard": False})
  assert not engine.asked[-1].guard


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("prompt", "Dear Sir"),
    ("temperature", 0.5),
    ("language", "de"),
    ("include", ["logprobs"]),
    ("chunking_strategy", "auto"),
    ("response_format", "diarized_json"),
    ("known_speaker_names", ["anna"]),
    ("timestamp_granularities", ["word"]),
    ("keywords", ["hra"]),
  ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
  client, engine, field, value
):
  before = len(engine.asked)
  with pytest.raises(openai.BadRequestError) as caught:
    _create(client, **{field: value})
  assert caught.value.param == field
  assert field in caught.value.body["message"]
  assert len(engine.asked) == before


def test_unknown_fields_are_refused_with_the_nearest(client):
  with pytest.raises(openai.BadRequestError, match="did you mean fallback"):
    _create(client, extra_body={"falback": True})


def test_fields_that_ask_for_nothing_are_taken(client):
  found = _create(client, temperature=0, language="en", prompt="")
  assert found.text == ANNA


def test_subtitles_are_not_streamed(client):
  with pytest.raises(openai.BadRequestError, match="srt can't be streamed"):
    _create(client, response_format="srt", stream=True)


def test_what_is_no_audio(client):
  with pytest.raises(openai.BadRequestError) as caught:
    _create(client, file=("speech.wav", b"RIFF, not really"))
  assert caught.value.code == "bad_audio"
  assert caught.value.param == "file"

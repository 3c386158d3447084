"""Requests with a recording, damaged by a seed: in it, its form, or around that."""

import re

import live_server as live
import mutations

WAV = live.wav(live.wave())
_BOUNDARY = b"----boundary0123456789"
_NAMES = (
  b"model",
  b"file",
  b"stream",
  b"response_format",
  b"timestamp_granularities[]",
  b"language",
  b"temperature",
  b"prompt",
  b"fallback",
  b"guard",
  b"include[]",
  b"",
  b"[]",
  b"file[]",
  b"__proto__",
  b"\xff\xfe",
  b"\0",
  b"n" * 9_000,
)
_VALUES = (
  b"tiny:anna",
  b"tiny:bert",
  b"tiny",
  b"tiny:",
  b":",
  b"tiny:../../etc/passwd",
  b"tiny:\0",
  b"tiny:\xed\xa0\x80",
  "tiny:a\u202eb\U0001f600".encode(),
  b"tiny:%2e%2e%2f",
  b"x" * 20_000,
  b"true",
  b"false",
  b"json",
  b"text",
  b"srt",
  b"vtt",
  b"verbose_json",
  b"word",
  b"segment",
  b"nan",
  b"1e999",
  b"-0",
  b"",
  b"\r\n--",
  b"\xff",
)
_CHARSETS = (
  b"utf-8",
  b"utf-16",
  b"utf-7",
  b"hex",
  b"rot13",
  b"idna",
  b"punycode",
  b"undefined",
  b"unicode_escape",
  b"raw_unicode_escape",
  b"zlib",
  b"bz2",
  b"mbcs",
  b"x" * 500,
  b"\0",
  b'"',
  b"",
)


def _part(name, data, *, more=b"", kind=b""):
  disposition = b'form-data; name="%s"%s' % (name, more)
  head = b"Content-Disposition: " + disposition + kind
  return b"--" + _BOUNDARY + b"\r\n" + head + b"\r\n\r\n" + data + b"\r\n"


def form(data, *fields):
  fields = fields or ((b"model", b"tiny:anna"),)
  parts = [_part(name, value) for name, value in fields]
  file = _part(b"file", data, more=b'; filename="a.wav"')
  return b"".join([*parts, file, b"--" + _BOUNDARY + b"--\r\n"])


def posted(
  body, *, path=b"/v1/audio/transcriptions", kind=None, headers=(), length=None
):
  kind = kind or b"multipart/form-data; boundary=" + _BOUNDARY
  lines = [
    b"POST " + path + b" HTTP/1.1",
    b"Host: 127.0.0.1",
    b"Content-Type: " + kind,
    b"Content-Length: %d" % (len(body) if length is None else length),
    b"Connection: close",
    *headers,
  ]
  return b"\r\n".join(lines) + b"\r\n\r\n" + body


def choose(rng, options):
  return options[int(rng.integers(len(options)))]


def _audio(rng, sounds):
  """Damaged bytes in a whole form."""
  name = choose(rng, list(sounds))
  data = mutations.mutate(sounds[name], rng, list(sounds.values()))
  return posted(form(data))


def _framing(rng, sounds):
  """A damaged form."""
  body = form(WAV[: int(rng.integers(2_000))], *_fields(rng))
  body = mutations.mutate(body, rng, [form(b"x"), *list(sounds.values())[:3]])
  return posted(body)


def _fields(rng):
  count = int(rng.integers(4))
  named = [(choose(rng, _NAMES), choose(rng, _VALUES)) for _ in range(count)]
  return [(b"model", choose(rng, _VALUES)), *named]


def _words(rng, sounds):
  """A whole form that says odd things."""
  del sounds
  body = form(WAV, *_fields(rng))
  boundary = _BOUNDARY
  charset = b""
  match rng.integers(6):
    case 0:
      charset = b"; charset=" + choose(rng, _CHARSETS)
    case 1:
      boundary = choose(rng, (b"", b"\xff", b"b" * 9_000, b'"', b"--"))
    case 2:
      more = choose(
        rng,
        (
          b"; filename*=UTF-8''%ff%fe",
          b"; filename*=hex''00",
          b'; filename="../../x"',
          b"; filename",
          b'; filename=""',
          b"; filename*0=a; filename*1=b",
        ),
      )
      body = _part(b"file", WAV, more=more) + body
    case 3:
      kind = choose(
        rng,
        (
          b"\r\nContent-Transfer-Encoding: base64",
          b"\r\nContent-Type: text/plain; charset=hex",
          b"\r\n" + b"X: y\r\n" * 3_000 + b"Z: z",
          b"\r\nContent-Disposition: form-data",
          b"\r\nno colon here",
        ),
      )
      body = _part(b"model", b"tiny", kind=kind) + body
    case 4:
      body = body * int(rng.integers(2, 40))
  kind = b"multipart/form-data; boundary=" + boundary + charset
  if rng.integers(8) == 0:
    kind = choose(
      rng,
      (
        b"application/json",
        b"application/x-www-form-urlencoded",
        b"multipart/form-data",
        b"multipart/mixed; boundary=" + _BOUNDARY,
        b"\xff\xfe",
      ),
    )
  return posted(body, kind=kind)


def _whole(rng, sounds):
  """A damaged request."""
  request = posted(form(WAV), headers=(b"Accept: */*",))
  others = [
    posted(b""),
    b"GET / HTTP/1.1\r\n\r\n",
    *list(sounds.values())[:2],
  ]
  if rng.integers(2):
    head, _, rest = request.partition(b"\r\n\r\n")
    return mutations.mutate(head + b"\r\n\r\n", rng, others) + rest
  return mutations.mutate(request, rng, others)


def _coding(rng, sounds):
  """Lengths and chunks that lie."""
  del sounds
  body = form(WAV[:3_000])
  if rng.integers(2):
    length = int(rng.choice([0, 1, len(body) - 5, len(body) + 5, 2**31, 2**70]))
    return posted(body, length=length)
  chunks = b""
  for start in range(0, len(body), 500):
    part = body[start : start + 500]
    size = b"%x" % int(rng.choice([len(part)] * 8 + [0, 2**40]))
    chunks += size + b"\r\n" + part + b"\r\n"
  chunks += b"0\r\n\r\n"
  request = posted(chunks, headers=(b"Transfer-Encoding: chunked",))
  return re.sub(rb"Content-Length: \d+\r\n", b"", request)


def _routes(rng, sounds):
  """Other paths and methods, with what is no JSON."""
  del sounds
  path = choose(
    rng,
    (
      b"/v1/models/" + choose(rng, _VALUES).replace(b"\r\n", b""),
      b"/v1/models/%00",
      b"/v1/models/tiny:%ed%a0%80",
      b"/v1/models/tiny:..%2f..%2fetc",
      b"/v1/models?" + b"a=" * 50,
      b"/admin/load",
      b"/admin/unload",
      b"/v1/audio/stream",
      b"/../../etc/passwd",
      b"/%2e%2e/%2e%2e/etc/passwd",
      b"/static/..%5c..%5cx",
      b"//x",
      b"*",
    ),
  )
  body = choose(
    rng,
    (
      b'{"task": "anna"}',
      b'{"task": "\\ud800"}',
      b'{"task": 1e400}',
      b"[" * 9_000,
      b"\xff",
      b"",
      b'{"task": "' + b"../" * 99 + b'"}',
    ),
  )
  request = posted(body, path=path, kind=b"application/json")
  method = choose(rng, (b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"X"))
  return request.replace(b"POST", method, 1)


MAKERS = (_audio, _audio, _framing, _framing, _words, _whole, _coding, _routes)

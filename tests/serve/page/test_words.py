"""Which words two transcripts don't share."""

WORDS = [
  ("", "", [], [], 0),
  ("a b c", "a b c", [], [], 0),
  ("a b c", "", ["a", "b", "c"], [], 3),
  ("", "a", [], ["a"], 1),
  ("a b c", "a x c", ["b"], ["x"], 1),
  ("a c", "a b c", [], ["b"], 1),
  ("b a", "a b", ["b"], ["b"], 2),
  ("Hello, world.", "hello world", [], [], 0),
  ("don't", "dont", ["don't"], ["dont"], 1),
  ("Ärger - ja", "ärger - nein", ["ja"], ["nein"], 1),
  ("a a a", "a a", ["a"], [], 1),
  ("to day is", "today is", ["to", "day"], ["today"], 2),
]


def test_words(page):
  found = page.evaluate(
    """async (pairs) => {
      const { compare } = await import("./words.js");
      return pairs.map(([left, right]) => compare(left, right));
    }""",
    [[left, right] for left, right, *_ in WORDS],
  )
  for (left, right, only, others, edits), told in zip(
    WORDS, found, strict=True
  ):
    for text, differing, words in (
      (left, only, told["left"]),
      (right, others, told["right"]),
    ):
      assert [word["text"] for word in words] == text.split()
      assert [word["text"] for word in words if word["differs"]] == differing
    assert told["edits"] == edits, (left, right)


def test_words_of_half_an_hour(page):
  words = [f"w{number % 977}" for number in range(5000)]
  other = [*words]
  other[::7] = ["else"] * len(other[::7])
  found = page.evaluate(
    "async (texts) => (await import('./words.js')).compare(...texts).edits",
    [" ".join(words), " ".join(other)],
  )
  assert found == len(other[::7])

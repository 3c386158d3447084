// Two transcripts -> their words, each marked where the other says something else.

const MOST = 1 << 26; // cells of the table: 8,000 words beside 8,000

/**
 * @param {string} left
 * @param {string} right
 * @returns {{left: {text: string, differs: boolean}[],
 *   right: {text: string, differs: boolean}[], edits: ?number}} edits: the words that
 *   are replaced, missing or more; null where the texts are too long to be compared.
 */
export function compare(left, right) {
  const a = split(left);
  const b = split(right);
  const keys = [a, b].map((words) => words.map(plain));
  let head = 0;
  const shorter = Math.min(a.length, b.length);
  while (head < shorter && keys[0][head] === keys[1][head]) head++;
  let tail = 0;
  while (
    tail < shorter - head &&
    keys[0][a.length - 1 - tail] === keys[1][b.length - 1 - tail]
  ) tail++;
  const [x, y] = keys.map((own) => own.slice(head, own.length - tail));
  if (x.length * y.length > MOST) {
    const bare = (words) => words.map((text) => ({ text, differs: false }));
    return { left: bare(a), right: bare(b), edits: null };
  }
  const { equal, edits } = align(x, y);
  const marked = (words, side) => words.map((text, i) => ({
    text,
    differs: i >= head && i < words.length - tail && !equal[side].has(i - head),
  }));
  return { left: marked(a, 0), right: marked(b, 1), edits };
}

function split(text) {
  return text.split(/\s+/u).filter(Boolean);
}

/** A word as it is compared: neither case nor punctuation around it counts. */
function plain(word) {
  const bare = word.toLowerCase().replace(/^[^\p{L}\p{N}]+|[^\p{L}\p{N}]+$/gu, "");
  return bare || word;
}

/** A longest common subsequence: the places of its words in both. */
function align(x, y) {
  const wide = y.length + 1;
  const longest = new Uint16Array((x.length + 1) * wide);
  for (let i = x.length - 1; i >= 0; i--) {
    for (let j = y.length - 1; j >= 0; j--) {
      longest[i * wide + j] = x[i] === y[j]
        ? longest[(i + 1) * wide + j + 1] + 1
        : Math.max(longest[(i + 1) * wide + j], longest[i * wide + j + 1]);
    }
  }
  const equal = [new Set(), new Set()];
  let [i, j, only, edits] = [0, 0, [0, 0], 0];
  const close = () => {
    edits += Math.max(...only);
    only = [0, 0];
  };
  while (i < x.length || j < y.length) {
    if (i < x.length && j < y.length && x[i] === y[j]) {
      close();
      equal[0].add(i++);
      equal[1].add(j++);
    } else if (
      j === y.length ||
      (i < x.length && longest[(i + 1) * wide + j] >= longest[i * wide + j + 1])
    ) {
      only[0]++;
      i++;
    } else {
      only[1]++;
      j++;
    }
  }
  close();
  return { equal, edits };
}

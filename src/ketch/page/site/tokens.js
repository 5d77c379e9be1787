// Texts as counted and weighed tokens, as the service makes them (ketch/tokens.py, scikit-learn's vectorizers).

// what Python takes for blank
const BLANK = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const BLANKS = new RegExp(`[${BLANK}][${BLANK}]+`, "gu");
const WORDS = new RegExp(`[^${BLANK}]+`, "gu");

/** Make what turns a text into [place, weight], no place twice. */
export function tokenizer(part) {
  const told = { analyzer: "word", ngrams: [1, 1], lowercase: true, accents: "", norm: "", ...part };
  const strip = stripper(told);
  const cut = cutter(told);
  const count = told.vocabulary ? known(new Map(Object.entries(told.vocabulary))) : hashed(told.width, told.signed);
  return (text) => weighed(count(cut(strip(told.lowercase ? text.toLowerCase() : text))), told);
}

function stripper({ accents, marks }) {
  if (accents === "ascii") return (text) => text.normalize("NFKD").replace(/[^\x00-\x7f]/gu, "");
  if (accents !== "unicode") return (text) => text;
  const combining = new RegExp(`[${marks}]`, "gu");
  return (text) => text.normalize("NFKD").replace(combining, "");
}

function cutter({ analyzer, ngrams: [least, most], script, stop_words: stops = [] }) {
  const lengths = Array.from({ length: most - least + 1 }, (_, at) => least + at);
  if (analyzer === "char") {
    return (text) => ((letters) => lengths.flatMap((n) => slices(letters, n)))(Array.from(text.replace(BLANKS, " ")));
  }
  if (analyzer === "char_wb") {
    return (text) => (text.match(WORDS) ?? []).flatMap((word) => [...inside(Array.from(` ${word} `), lengths)]);
  }
  const pattern = new RegExp(script, "gu");
  const stopped = new Set(stops);
  return (text) => {
    const found = Array.from(text.matchAll(pattern), (each) => (each.length > 1 ? (each[1] ?? "") : each[0]));
    const tokens = found.filter((word) => !stopped.has(word));
    return most === 1 ? tokens : lengths.flatMap((n) => slices(tokens, n, " "));
  };
}

function slices(whole, n, between = "") {
  return Array.from({ length: Math.max(0, whole.length - n + 1) }, (_, at) => whole.slice(at, at + n).join(between));
}

function* inside(letters, lengths) {
  for (const n of lengths) {
    if (n >= letters.length) {
      yield letters.join(""); // a short word counts once
      return;
    }
    yield* slices(letters, n);
  }
}

function known(places) {
  return (tokens) => counted(tokens, (token) => [places.get(token), 1]);
}

function hashed(width, signed) {
  return (tokens) =>
    counted(tokens, (token) => {
      const found = murmur(new TextEncoder().encode(token));
      return [Math.abs(found) % width, signed && found < 0 ? -1 : 1];
    });
}

function counted(tokens, placed) {
  const counts = new Map();
  for (const token of tokens) {
    const [place, by] = placed(token);
    if (place !== undefined) counts.set(place, (counts.get(place) ?? 0) + by);
  }
  return counts;
}

function weighed(counts, { binary, sublinear, idf, norm }) {
  let found = [...counts];
  if (binary) found = found.map(([place]) => [place, 1]);
  if (sublinear) found = found.map(([place, count]) => [place, Math.log(count) + 1]);
  if (idf) found = found.map(([place, count]) => [place, count * idf[place]]);
  const whole = NORMS[norm](found.map(([, count]) => count));
  return whole === 0 ? found : found.map(([place, count]) => [place, count / whole]);
}

const NORMS = {
  "": () => 1,
  l1: (values) => values.reduce((sum, value) => sum + Math.abs(value), 0),
  l2: (values) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0)),
};

/** MurmurHash3, x86, 32 bits, seed 0 (Appleby 2011), signed as Python's mmh3 gives it. */
function murmur(data) {
  const turn = (x, by) => (x << by) | (x >>> (32 - by));
  const mix = (k) => Math.imul(turn(Math.imul(k, 0xcc9e2d51), 15), 0x1b873593);
  const whole = data.length & ~3;
  let h = 0;
  for (let at = 0; at < whole; at += 4) {
    h ^= mix(data[at] | (data[at + 1] << 8) | (data[at + 2] << 16) | (data[at + 3] << 24));
    h = (Math.imul(turn(h, 13), 5) + 0xe6546b64) | 0;
  }
  let rest = 0;
  for (let at = data.length - 1; at >= whole; at -= 1) rest = (rest << 8) | data[at];
  if (data.length > whole) h ^= mix(rest);
  h ^= data.length;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) | 0;
}

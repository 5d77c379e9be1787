// The compiled form of a model, evaluated in the browser: the same data that the service evaluates.
//
// checked rows --encode--> float64 --weigh, climb or ONNX Runtime--> outputs --link--> answer

import { partsOf } from "./contract.js";
import { tokenizer } from "./tokens.js";

/** A row that the model gives no answer to, though it keeps the contract. */
export class NotAnswerable extends Error {}

/** Make what answers checked rows: each is {field: value}, null where nothing is there. */
export async function evaluator(model, openGraph) {
  const { program } = model;
  if (program.type === "linear") return linear(program, model.answer);
  const encode = encoder(program.parts, program.largest);
  const ask = model.trees ? climber(model.trees, encode) : await openGraph(program, encode);
  return async (rows) => grouped(await ask(rows), program, model.answer);
}

// ---- numbers as they are written --------------------------------------------------------------------

export function bytes(base64) {
  return Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
}

function numbers([width, data]) {
  const raw = bytes(data);
  const view = new DataView(raw.buffer);
  const found = Float64Array.from({ length: raw.length / 8 }, (_, at) => view.getFloat64(at * 8, true));
  return { width, found };
}

function rowsOf(array) {
  const { width, found } = numbers(array);
  return Array.from({ length: width ? found.length / width : 0 }, (_, at) => found.subarray(at * width, (at + 1) * width));
}

// ---- parts ------------------------------------------------------------------------------------------

const STEPS = { "+": (a, b) => a + b, "-": (a, b) => a - b, "*": (a, b) => a * b, "/": (a, b) => a / b };

/** Make what looks a value up; a Map tells 1, "1" and true apart, as the contract does. */
function tableReader(part, rows) {
  const known = new Map(part.keys.map((key, at) => [key, rows[at]]));
  if (part.missing) known.set(null, rows[rows.length - 1]);
  const unknown = part.unknown ? rows[part.keys.length] : undefined;
  return (value) => {
    const found = known.get(value) ?? (value === null ? undefined : unknown);
    if (found === undefined) throw new NotAnswerable(`${part.field} is ${value === null ? "missing" : "unknown"}`);
    return found;
  };
}

function numberReader(part, largest) {
  const steps = (part.steps ?? []).map(([kind, by]) => [STEPS[kind], by]);
  const missing = part.missing ?? null;
  const absent = missing === "nan" ? NaN : missing;
  return (value) => {
    if (value === null && absent === null) throw new NotAnswerable(`${part.field} is missing`);
    const found = steps.reduce((sum, [step, by]) => step(sum, by), value === null ? absent : Number(value));
    const inside = -largest <= found && found <= largest;
    if (!inside && (!Number.isNaN(found) || absent === null)) throw new NotAnswerable(`${part.field} is too large`);
    return found;
  };
}

function textReader(part) {
  const cut = tokenizer(part);
  return (value) => {
    if (value === null) throw new NotAnswerable(`${part.field} is missing`);
    return cut(value);
  };
}

// ---- linear -----------------------------------------------------------------------------------------

function linear(program, answer) {
  const { bias } = program;
  const terms = program.parts.map((each) => term(each, bias.length, program.largest ?? Number.MAX_VALUE));
  const link = LINKS[program.link ?? "identity"];
  return async (rows) =>
    rows.map((row) => {
      const sums = [...bias];
      for (const { field, weigh } of terms) weigh(row[field]).forEach((worth, at) => (sums[at] += worth));
      return ofSums(sums, link, answer);
    });
}

function ofSums(sums, link, answer) {
  const { task, classes = [], values } = answer;
  if (task === "regression") return { label: link(sums)[0] };
  if (task === "outlier") return { label: sums[0] >= 0 ? 1 : -1, score: sums[0] };
  const label = classes[sums.length === 1 ? Number(sums[0] > 0) : best(sums)];
  if (values === "probability") return { label, probabilities: link(sums) };
  return { label, score: sums.length === 1 ? sums[0] : sums };
}

function term({ part, weights, rows }, outputs, largest) {
  const { field } = part;
  const own = rowsOf(weights);
  if (part.type === "table") {
    const worths = rowsOf(part.rows).map((row) => weighed(row, own, outputs));
    return { field, weigh: tableReader(part, worths) };
  }
  if (part.type === "number") {
    const read = numberReader(part, largest);
    return { field, weigh: (value) => ((found) => Array.from(own[0], (weight) => found * weight))(read(value)) };
  }
  const cut = textReader(part);
  const rowOf = rows && new Map(rows.map((place, row) => [place, row]));
  return {
    field,
    weigh: (value) => {
      const sums = new Array(outputs).fill(0);
      for (const [place, count] of cut(value)) {
        const row = own[rowOf ? rowOf.get(place) : place];
        if (row) row.forEach((weight, at) => (sums[at] += count * weight));
      }
      return sums;
    },
  };
}

function weighed(row, weights, outputs) {
  const sums = new Array(outputs).fill(0);
  row.forEach((value, at) => weights[at].forEach((weight, output) => (sums[output] += value * weight)));
  return sums;
}

// ---- graphs: encoded, then climbed tree by tree or run by ONNX Runtime --------------------------------

/** Make what encodes rows as one float64 array of rows by columns. */
export function encoder(parts, largest = Number.MAX_VALUE) {
  const fills = parts.map((part) => filler(part, largest));
  const width = fills.reduce((sum, each) => sum + each.width, 0);
  const encode = (rows) => {
    const x = new Float64Array(rows.length * width);
    rows.forEach((row, n) => {
      let at = n * width;
      for (const { field, fill, width: own } of fills) {
        fill(row[field], x, at);
        at += own;
      }
    });
    return x;
  };
  return Object.assign(encode, { width });
}

function filler(part, largest) {
  const { field } = part;
  if (part.type === "table") {
    const look = tableReader(part, rowsOf(part.rows));
    return { field, width: part.rows[0], fill: (value, x, at) => x.set(look(value), at) };
  }
  if (part.type === "number") {
    const read = numberReader(part, largest);
    return { field, width: 1, fill: (value, x, at) => (x[at] = read(value)) };
  }
  const cut = textReader(part);
  const fill = (value, x, at) => cut(value).forEach(([place, count]) => (x[at + place] = count));
  return { field, width: part.width, fill };
}

/** Make what adds up trees: each leads from its root to a leaf that is worth something for every output. */
function climber({ ensembles, bias, single }, encode) {
  const add = single ? (sum, worth) => Math.fround(sum + worth) : (sum, worth) => sum + worth; // as the original does
  const grown = ensembles.map((each) => grow(each, bias.length, add));
  return async (rows) => {
    const x = encode(rows);
    const found = rows.map((_, n) => {
      const sums = [...bias];
      const row = x.subarray(n * encode.width, (n + 1) * encode.width);
      for (const climb of grown) climb(row, sums);
      return sums;
    });
    return { sums: found };
  };
}

const KINDS = { u1: Uint8Array, i1: Int8Array, i2: Int16Array, i4: Int32Array, f4: Float32Array, f8: Float64Array };

/** Read numbers: all of them, or the different ones and the place of each; one alone is what all `count` are. */
function listed(told, count) {
  const [values, places] = told.map(([kind, data]) => new KINDS[kind](bytes(data).buffer));
  if (places) return Float64Array.from(places, (at) => values[at]);
  return values.length === 1 ? new Float64Array(count).fill(values[0]) : values;
}

/** Lay out trees that are written as they are walked, yes before no: a leaf is its number below zero. */
function laid(walk) {
  const [yes, no, feature, roots, waiting] = [[], [], [], [], []];
  let leaves = 0;
  for (const asked of walk) {
    const [ends, at] = waiting.pop() ?? [roots, roots.length];
    ends[at] = asked < 0 ? -(leaves += 1) : feature.length;
    if (asked < 0) continue;
    waiting.push([no, feature.length], [yes, feature.length]);
    feature.push(asked);
  }
  return { yes: Int32Array.from(yes), no: Int32Array.from(no), feature: Int32Array.from(feature), roots, leaves };
}

function grow(told, outputs, add) {
  const { yes, no, feature, roots, leaves } = laid(listed(told.walk));
  const [mode, nan, splits] = ["mode", "nan", "splits"].map((name) => listed(told[name], feature.length));
  const to = told.to && listed(told.to, roots.length);
  const worth = listed(told.worth, to ? leaves : leaves * outputs);
  const members = new Map(told.members.map(([node, values]) => [node, new Set(values)]));
  const read = told.narrow ? Math.fround : (value) => value;
  const decides = (node, value) => {
    if (Number.isNaN(value)) return nan[node];
    if (mode[node] === 6) return members.get(node).has(value);
    return mode[node] === 1 ? value < splits[node] : value <= splits[node];
  };
  return (row, sums) => {
    roots.forEach((root, tree) => {
      let node = root;
      while (node >= 0) node = decides(node, read(row[feature[node]])) ? yes[node] : no[node];
      const leaf = -node - 1;
      if (to) sums[to[tree]] = add(sums[to[tree]], worth[leaf]);
      else for (let at = 0; at < outputs; at += 1) sums[at] = add(sums[at], worth[leaf * outputs + at]);
    });
  };
}

function grouped(found, program, answer) {
  if (found.sums) {
    const group = program.outputs[0];
    return found.sums.map((sums) => ofOutputs({ [group.values ? "values" : "probabilities"]: sums }, program.links[0], answer));
  }
  const parts = partsOf(answer);
  return found.rows.map((groups) => {
    const each = groups.map((outputs, at) => ofOutputs(outputs, program.links[at], groups.length > 1 ? parts[at] : answer));
    return each.length > 1 ? { parts: each } : each[0];
  });
}

function ofOutputs({ values, labels, probabilities, scores, refused }, linked, answer) {
  const link = LINKS[linked];
  if (refused?.some(Boolean)) throw new NotAnswerable("a value is beyond what the model takes");
  if (values) {
    const found = link(values);
    return answer.task === "several" ? { parts: found.map((label) => ({ label })) } : { label: found[0] };
  }
  const { classes = [] } = answer;
  const said = labels && (classes.length ? classes[labels[0]] : labels[0]);
  if (probabilities) {
    const likely = link(probabilities);
    return { label: said ?? classes[best(likely)], probabilities: likely };
  }
  if (!scores) return { label: said };
  if (scores.length === 1) return { label: said ?? classes[Number(scores[0] > 0)], score: scores[0] };
  return { label: said ?? classes[best(scores)], score: scores };
}

// ---- links ------------------------------------------------------------------------------------------

function best(row) {
  return row.reduce((top, value, at) => (value > row[top] ? at : top), 0);
}

function sigmoid(z) {
  if (z >= 0) return 1 / (1 + Math.exp(-z));
  const grown = Math.exp(z);
  return grown / (1 + grown);
}

function shares(found) {
  const whole = found.reduce((sum, each) => sum + each, 0);
  return found.map((each) => (whole ? each / whole : 1 / found.length));
}

const LEAST = -Math.log(Number.MAX_VALUE);
const LINKS = {
  identity: (row) => [...row],
  exp: (row) => row.map(Math.exp),
  expm1: (row) => row.map(Math.expm1),
  sigmoid: ([z]) => ((likely) => [1 - likely, likely])(sigmoid(z)),
  both: ([likely]) => [1 - likely, likely],
  each: (row) => row.map(sigmoid),
  softmax: (row) => {
    const top = Math.max(...row);
    return shares(row.map((z) => Math.exp(z - top)));
  },
  shares: (row) => ((found) => (found.some(Boolean) ? shares(found) : found))(row.map(sigmoid)),
  even: (row) => shares(row.map((z) => (z > LEAST ? sigmoid(z) : 0))),
};

// The page that asks: a form, the answer beside it, and what if one field changed.

import { bar, build, element, fill, faultTold, percent, show, told } from "./form.js";
import { check, partsOf } from "./contract.js";

const PAUSE = 120; // milliseconds without a change before the model is asked
const STEPS = 41;
const NS = "http://www.w3.org/2000/svg";

/** Fill `place` with form, answer and curve; `ask` gives the answers of rows that keep the contract. */
export function asking(place, model, ask, { words, lang }) {
  const form = element("form", { class: "fields", novalidate: true, autocomplete: "off" });
  const output = element("div", { id: "answer", "aria-live": "polite" });
  const notes = element("ul", { class: "notes" });
  const curve = element("div", { class: "curve" });
  const inputs = build(form, { ...model, words, lang });
  const choice = fieldChoice(model);
  const state = { row: null, turn: 0 };

  async function answer() {
    const turn = ++state.turn;
    const { row, faults, flags } = check(model.fields, inputs.row());
    inputs.blame([...faults, ...flags].map((each) => ({ ...each, told: faultTold(each, model.fields, words) })));
    state.row = faults.length ? null : row;
    notes.replaceChildren(...notesOf(faults, flags, model.fields, words));
    if (faults.length) output.replaceChildren(element("p", { class: "answer" }, words.refused));
    else await answered(() => ask([row]), ([found]) => show(output, model.answer, found, { words, lang }), turn);
    if (curve.isConnected) await bend();
  }

  async function answered(run, use, turn) {
    try {
      const found = await run();
      if (turn === state.turn) use(found);
    } catch (error) {
      if (turn === state.turn) output.replaceChildren(element("p", { class: "answer" }, reasonOf(error, words)));
    }
  }

  async function bend() {
    const field = model.fields[Number(choice.value)];
    const values = valuesOf(model.widgets[Number(choice.value)]);
    if (!state.row || !field) return curve.replaceChildren();
    const rows = values.map((value) => Object.assign(Object.create(null), state.row, { [field.name]: value }));
    const { turn } = state;
    return answered(() => ask(rows), (found) => curve.replaceChildren(drawn(field, values, found, state.row, model, { words, lang })), turn);
  }

  let waiting = 0;
  form.addEventListener("input", (event) => {
    if (event.target.id === "find") return;
    clearTimeout(waiting);
    waiting = setTimeout(answer, PAUSE);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    answer();
  });
  choice.addEventListener("input", () => bend());

  const right = element("section", { class: "result", "aria-label": words.answer }, element("h2", {}, words.answer), output, notes);
  if (choice.options.length) {
    const label = element("label", { for: "what-if" }, words.what_if);
    right.append(element("div", { class: "what-if" }, label, choice, element("p", { class: "help" }, words.what_if_told), curve));
  }
  place.append(examplesOf(model, inputs, answer, words), element("div", { class: "two" }, form, right));
  return answer();
}

function examplesOf(model, inputs, answer, words) {
  const button = (text, row) => {
    const made = element("button", { type: "button", class: "example" }, text);
    made.addEventListener("click", () => {
      inputs.set(row);
      answer();
    });
    return made;
  };
  const rows = model.examples.map((row, at) => button(fill(words.example, at + 1), row));
  return element("p", { class: "examples" }, `${words.examples}: `, button(words.typical, model.start), ...rows);
}

function notesOf(faults, flags, fields, words) {
  const lines = [...faults, ...flags].map((each) => element("li", {}, faultTold(each, fields, words)));
  return flags.length && !faults.length ? [element("li", {}, `${words.flagged}:`), ...lines] : lines;
}

/** Say why there is no answer. */
export function reasonOf(error, words) {
  if (error.hint !== undefined) return [error.message, error.hint].filter(Boolean).join(". ");
  return error instanceof TypeError ? fill(words.broken, error.message) : `${words.refused}: ${words["fault_not-answerable"]}`;
}

// ---- what if ------------------------------------------------------------------------------------------

function fieldChoice(model) {
  const choice = element("select", { id: "what-if" });
  model.widgets.forEach((each, at) => {
    if (valuesOf(each).length > 1) choice.append(element("option", { value: at }, each.label));
  });
  const number = model.widgets.findIndex((each) => each.kind === "slider");
  if (number >= 0) choice.value = String(number);
  return choice;
}

function valuesOf({ kind, choices, minimum, maximum, whole }) {
  if (kind === "choice") return choices.slice(0, 30);
  if (kind === "yesno") return [false, true];
  if (kind !== "slider") return [];
  const all = Array.from({ length: STEPS }, (_, at) => minimum + ((maximum - minimum) * at) / (STEPS - 1));
  return [...new Set(whole ? all.map(Math.round) : all)];
}

function scoreOf(model, found, label) {
  const answer = partsOf(model.answer)[0];
  const name = answer.target ?? "prediction";
  const each = found[`${name}_probabilities`] ?? found[`${name}_scores`];
  if (each) return each[label];
  const first = found[`${name}_probability`] ?? found[`${name}_score`] ?? found.outlier_score ?? found[name] ?? found.cluster;
  return Number(first);
}

function drawn(field, values, found, row, model, { words, lang }) {
  const answer = partsOf(model.answer)[0];
  const numeric = typeof values[0] === "number" && field.type !== "category";
  const own = values.findIndex((value) => (numeric ? value >= row[field.name] : value === row[field.name]));
  const several = answer.task === "multiclass"; // of which the one answered now is followed
  const followed = String(found[Math.max(0, own)][answer.target]);
  const scores = found.map((each) => scoreOf(model, each, followed));
  if (!scores.every(Number.isFinite)) return "";
  const bounded = Object.keys(found[0]).some((name) => name.includes("_probabilit"));
  const [low, high] = bounded ? [0, 1] : [Math.min(...scores), Math.max(...scores)];
  const write = (each) => (bounded ? percent(each, lang) : told(each, lang));
  const head = several ? [element("p", { class: "help" }, `${answer.target}: ${followed}`)] : [];
  if (!numeric) return element("figure", {}, ...head, columns(values, scores, [low, high], write, words));
  const y = (score) => 110 - (100 * (score - low)) / (high - low || 1);
  const x = (at) => 10 + (300 * at) / Math.max(1, values.length - 1);
  const points = scores.map((score, at) => `${x(at)},${y(score)}`).join(" ");
  const mark = own >= 0 ? [svg("circle", { cx: x(own), cy: y(scores[own]), r: 4, class: "own" })] : [];
  const ends = [low, high].map(write).join(" … ");
  const label = `${words.what_if}: ${field.label || field.name}, ${ends}`;
  const picture = svg("svg", { viewBox: "0 0 320 120", role: "img", "aria-label": label }, svg("polyline", { points, class: "line" }), ...mark);
  const across = `${field.label || field.name}: ${told(values[0], lang)} … ${told(values[values.length - 1], lang)}`;
  const caption = element("figcaption", {}, element("span", {}, across), element("span", { class: "amount" }, `↕ ${ends}`));
  return element("figure", {}, ...head, picture, caption);
}

function columns(values, scores, [low, high], write, words) {
  const said = (value) => (typeof value === "boolean" ? (value ? words.yes : words.no) : String(value));
  const bars = values.map((value, at) => bar(said(value), (scores[at] - low) / (high - low || 1), write(scores[at])));
  return element("div", { class: "bars" }, ...bars);
}

function svg(tag, attributes, ...inside) {
  const made = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...inside);
  return made;
}

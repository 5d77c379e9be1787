// The form of a contract, and an answer in words. Texts of models and files are only ever set as text, never as markup.

import { isYesNo, partsOf, read } from "./contract.js";

const FEW = 8; // categories shown in a fault
const MANY = 24; // fields from which on a search helps

/** Make an element: attributes, then what stands in it. */
export function element(tag, attributes = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...inside.filter((each) => each !== null && each !== undefined));
  return made;
}

/** Fill the places of a sentence: {} in their order, {name} by name. */
export function fill(text, ...values) {
  const named = values[0] && typeof values[0] === "object" ? values[0] : {};
  let at = 0;
  return text.replace(/\{(\w*)\}/g, (_, name) => String(name ? (named[name] ?? "") : values[at++]));
}

/** Write a number as the reader's language does, with as many digits as matter. */
export function told(value, lang) {
  if (typeof value !== "number") return String(value);
  if (value !== 0 && (Math.abs(value) >= 1e15 || Math.abs(value) < 1e-6)) return value.toExponential(3);
  return new Intl.NumberFormat(lang, { maximumSignificantDigits: Math.abs(value) >= 1e4 ? 8 : 5 }).format(value);
}

export function percent(value, lang) {
  const digits = value > 0 && value < 1 && (value < 0.001 || value > 0.999) ? 3 : 1;
  return new Intl.NumberFormat(lang, { style: "percent", maximumFractionDigits: digits }).format(value);
}

// ---- the form -----------------------------------------------------------------------------------------

/** Put the inputs of all fields into `place`; gives what reads them, fills them and tells of their faults. */
export function build(place, { fields, widgets, words, lang }) {
  const inputs = widgets.map((widget, at) => input(widget, fields[at], at, { words, lang }));
  if (inputs.length > MANY) place.append(finder(inputs, words));
  place.append(...inputs.map((each) => each.whole));
  return {
    row() {
      const row = Object.create(null);
      inputs.forEach((each, at) => (row[fields[at].name] = each.get()));
      return row;
    },
    set(row) {
      inputs.forEach((each, at) => each.set(row[fields[at].name] ?? null));
    },
    blame(faults) {
      const told = new Map(faults.map((each) => [each.field, each.told]));
      inputs.forEach((each, at) => each.blame(told.get(fields[at].name) ?? ""));
    },
  };
}

function finder(inputs, words) {
  const search = element("input", { type: "search", id: "find", autocomplete: "off" });
  search.addEventListener("input", () => {
    const wanted = search.value.trim().toLowerCase();
    for (const each of inputs) each.whole.hidden = !each.label.toLowerCase().includes(wanted);
  });
  return element("div", { class: "field wide" }, element("label", { for: "find" }, words.find), search);
}

function input(widget, field, at, told) {
  const id = `field-${at}`;
  const made = (MAKERS[widget.kind] ?? MAKERS.text)(widget, field, id, told);
  const fault = element("span", { class: "fault", id: `${id}-fault`, role: "status" });
  made.main.setAttribute("aria-describedby", `${id}-help ${id}-fault`);
  const unit = widget.unit ? ` (${widget.unit})` : "";
  const help = widget.kind === "choice" && !field.description ? "" : widget.help; // which would list the choices again
  const whole = element(
    "div",
    { class: "field" },
    element("label", { for: id }, widget.label + unit),
    ...made.shown,
    element("span", { class: "help", id: `${id}-help` }, help),
    fault,
  );
  const blame = (text) => {
    fault.textContent = text;
    if (text) made.main.setAttribute("aria-invalid", "true");
    else made.main.removeAttribute("aria-invalid");
  };
  made.set(widget.start ?? null);
  return { whole, label: `${widget.label} ${widget.name}`, get: made.get, set: made.set, blame };
}

function choices(values, { required }, id, words) {
  const main = element("select", { id });
  if (!required) main.append(element("option", { value: "" }, words.empty));
  values.forEach(([, text], at) => main.append(element("option", { value: at }, text)));
  const get = () => (main.value === "" ? null : values[Number(main.value)][0]);
  const set = (value) => (main.value = value === null ? "" : String(values.findIndex(([each]) => each === value)));
  return { main, shown: [main], get, set };
}

function line(widget, field, id, attributes) {
  const main = element("input", { id, autocomplete: "off", ...attributes });
  return { main, shown: [main], get: () => read(field, main.value), set: (value) => (main.value = value ?? "") };
}

function slider(widget, field, id) {
  const { minimum: min, maximum: max, step } = widget;
  const made = line(widget, field, id, { type: "number", step: widget.whole ? 1 : "any", inputmode: "decimal" });
  const range = element("input", { type: "range", min, max, step, "aria-label": widget.label, tabindex: -1 });
  const { set } = made;
  const follow = () => (range.value = made.main.value === "" ? min : made.main.value);
  made.main.addEventListener("input", follow);
  range.addEventListener("input", () => {
    made.main.value = String(Number(Number(range.value).toPrecision(12)));
    made.main.dispatchEvent(new Event("input", { bubbles: true }));
  });
  made.set = (value) => {
    set(value);
    follow();
  };
  return { ...made, shown: [made.main, range] };
}

function area(widget, field, id) {
  const main = element("textarea", { id, rows: 3 });
  return { main, shown: [main], get: () => read(field, main.value), set: (value) => (main.value = value ?? "") };
}

const MAKERS = {
  choice: (widget, field, id, { words }) => choices(widget.choices.map((each) => [each, String(each)]), widget, id, words),
  yesno: (widget, field, id, { words }) => choices([[true, words.yes], [false, words.no]], widget, id, words),
  slider,
  number: (widget, field, id) => line(widget, field, id, { type: "number", step: widget.whole ? 1 : "any", inputmode: "decimal" }),
  date: (widget, field, id) => line(widget, field, id, { type: "date" }),
  datetime: (widget, field, id) => line(widget, field, id, { type: "text", placeholder: "YYYY-MM-DDTHH:MM:SS" }),
  vector: (widget, field, id) => {
    const made = line(widget, field, id, { type: "text", placeholder: "0.1, 0.2, …" });
    const { set } = made;
    return { ...made, set: (value) => set(Array.isArray(value) ? value.join(", ") : value) };
  },
  text: area,
};

// ---- answers ------------------------------------------------------------------------------------------

/** Say a fault in words. */
export function faultTold(fault, fields, words) {
  const field = fields.find((each) => each.name === fault.field);
  const expected = field ? words[field.type] : (fault.expected ?? "");
  const told = words[`fault_${fault.code}`] ?? fault.code;
  const allowed = (field?.categories ?? []).slice(0, FEW).join(", ") + ((field?.categories?.length ?? 0) > FEW ? " …" : "");
  const [low, high] = [field?.minimum ?? "…", field?.maximum ?? "…"];
  return fill(told, { field: field?.label || fault.field, expected, allowed, low, high });
}

/** Show an answer: a sentence, and a bar for each probability. */
export function show(place, answer, found, { words, lang }) {
  place.replaceChildren(...partsOf(answer).flatMap((part) => [sentence(part, found, { words, lang }), ...bars(part, found, lang)]));
}

function sentence(answer, found, { words, lang }) {
  const [said, more] = inWords(answer, found, { words, lang });
  return element("p", { class: "answer" }, element("strong", {}, said), more ? element("span", { class: "sure" }, ` ${more}`) : null);
}

/** Put an answer into words: what it is, and how sure. */
export function inWords(answer, found, { words, lang }) {
  const name = answer.target ?? "prediction";
  if (answer.task === "outlier") {
    const score = found.outlier_score;
    return [found.outlier ? words.unusual : words.usual, score === undefined ? "" : fill(words.score, told(score, lang))];
  }
  if (answer.task === "cluster") return [fill(words.group, found.cluster), ""];
  if (answer.task === "regression") return [`${name}: ${told(found[name], lang)}`, ""];
  const value = found[name];
  const said = isYesNo(answer) ? `${name}: ${value ? words.yes : words.no}` : `${name}: ${value}`;
  const likely = found[`${name}_probability`];
  if (likely !== undefined) return [said, fill(words.likely, isYesNo(answer) ? words.yes : answer.positive, percent(likely, lang))];
  const score = found[`${name}_score`];
  return [said, score === undefined ? "" : fill(words.score, told(score, lang))];
}

function bars(answer, found, lang) {
  const name = answer.target ?? "prediction";
  const likely = found[`${name}_probability`];
  const each = found[`${name}_probabilities`];
  if (likely !== undefined) return [bar("", likely, percent(likely, lang))];
  if (!each) return [];
  const ordered = Object.entries(each).sort(([, a], [, b]) => b - a).slice(0, 12);
  return [element("div", { class: "bars" }, ...ordered.map(([key, value]) => bar(key, value, percent(value, lang))))];
}

/** Make a bar from 0 to 1 with its label before it and the amount behind. */
export function bar(label, value, amount) {
  const meter = element("progress", { max: 1, value, "aria-label": label || amount });
  return element("div", { class: "bar" }, element("span", {}, label), meter, element("span", { class: "amount" }, amount));
}

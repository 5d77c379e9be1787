// The contract in the browser: cells read as their field's type, rows held against it, answers in the words of the wire.
//
// cells --read--> values --check--> faults and flags        outputs --shape--> answer

const MISSING = new Set(["", "na", "n/a", "nan", "null", "none"]);
const DAY = /^\d{4}-\d\d-\d\d$/;
const MOMENT = /^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)?)?$/;
const NUMBER = /^\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*$/i;
const FORMULA = /^[=+\-@\t\r]/;
const MOST_ALLOWED = 20; // categories shown in a fault

// ---- what people type, and what tables hold -----------------------------------------------------------

/** Read a text as a value of a field; what cannot be read stays text, and the check refuses it. */
export function read(field, text) {
  if (["text", "date", "datetime"].includes(field.type)) return text === "" ? null : text;
  if (field.type === "category") return category(field, text);
  const word = text.trim().toLowerCase();
  if (MISSING.has(word)) return null;
  if (field.type === "boolean") return { true: true, 1: true, false: false, 0: false }[word] ?? text;
  if (field.type === "vector") return vector(text);
  return NUMBER.test(text) ? Number(text) : text;
}

function category(field, text) {
  const known = field.categories.find((value) => String(value) === text);
  if (known !== undefined) return known;
  const word = text.trim().toLowerCase();
  if (MISSING.has(word)) return null;
  const numeric = field.categories.every((value) => typeof value !== "string");
  if (!numeric) return text;
  if (!NUMBER.test(text)) return field.categories.find((value) => String(value) === word) ?? text;
  return field.categories.find((value) => value === Number(text)) ?? Number(text);
}

function vector(text) {
  const cells = text.split(/[\s,;]+/).filter(Boolean);
  return cells.every((cell) => NUMBER.test(cell)) ? cells.map(Number) : text;
}

// ---- the check ----------------------------------------------------------------------------------------

/** Hold a row against the fields: the checked row, faults that refuse it, flags that do not. */
export function check(fields, row) {
  const found = { row: Object.create(null), faults: [], flags: [] };
  for (const field of fields) found.row[field.name] = checked(field, row[field.name] ?? null, found);
  return found;
}

function checked(field, value, found) {
  const told = (code, more = {}) => ({ field: field.name, code, ...more });
  if (value === null) {
    if (field.required) found.faults.push(told("missing"));
    return null;
  }
  if (field.type === "category") return checkedCategory(field, value, found, told);
  if (!ACCEPTS[field.type](value, field)) {
    found.faults.push(told(value === Infinity || Number.isNaN(value) ? "not-finite" : "wrong-type"));
    return null;
  }
  const outside = value < (field.minimum ?? -Infinity) || value > (field.maximum ?? Infinity);
  if (typeof value === "number" && outside) found.flags.push(told("out-of-range"));
  return value;
}

function checkedCategory(field, value, found, told) {
  if (field.categories.includes(value)) return value;
  if (!field.categories.some((each) => typeof each === typeof value)) {
    found.faults.push(told("wrong-type"));
    return null;
  }
  const soft = field.unknown === "flag";
  (soft ? found.flags : found.faults).push(told("unknown-category", { allowed: field.categories.slice(0, MOST_ALLOWED) }));
  return value;
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const ACCEPTS = {
  number: isNumber,
  integer: (value) => isNumber(value) && Number.isInteger(value),
  boolean: (value) => typeof value === "boolean",
  text: (value) => typeof value === "string",
  date: (value) => typeof value === "string" && DAY.test(value) && isDay(value),
  datetime: (value) => typeof value === "string" && MOMENT.test(value) && isDay(value.slice(0, 10)),
  vector: (value, field) => Array.isArray(value) && value.length === (field.length || value.length) && value.every(isNumber),
};

function isDay(text) {
  const found = new Date(`${text}T00:00:00Z`);
  return !Number.isNaN(found.getTime()) && found.toISOString().startsWith(text);
}

// ---- answers ------------------------------------------------------------------------------------------

/** Put what the model found into the words of the wire. */
export function shape(answer, found) {
  if (answer.task === "several") return Object.assign({}, ...answer.parts.map((part, at) => shape(part, found.parts[at])));
  const made = (SHAPES[answer.task] ?? SHAPES.cluster)(answer, found);
  const numbers = Object.values(made).flatMap((value) => (value && typeof value === "object" ? Object.values(value) : value));
  if (numbers.some((each) => typeof each === "number" && !Number.isFinite(each))) throw new Error("not-answerable");
  return made;
}

/** Give the answers of several targets, or the only one. */
export function partsOf(answer) {
  return answer.parts.length ? answer.parts : [answer];
}

/** Say whether an answer is true or false on the wire. */
export function isYesNo({ task, classes = [] }) {
  return task === "outlier" || (task === "binary" && classes.every((each) => typeof each !== "string" && [0, 1].includes(Number(each))));
}

const SHAPES = {
  binary(answer, { label, probabilities, score }) {
    const { target: name, classes, positive, threshold = null } = answer;
    const place = classes.indexOf(positive);
    const say = isYesNo(answer) ? Boolean : (value) => value;
    if (!probabilities) {
      return { [name]: say(label), ...(score === undefined ? {} : { [`${name}_score`]: place === 1 ? score : -score }) };
    }
    const likely = probabilities[place];
    const said = threshold === null ? label : likely >= threshold ? positive : classes[1 - place];
    return { [name]: say(said), [`${name}_probability`]: likely };
  },
  multiclass({ target: name, classes }, { label, probabilities, score }) {
    const found = probabilities ?? score;
    if (!Array.isArray(found)) return { [name]: label };
    const kind = probabilities ? "probabilities" : "scores";
    return { [name]: label, [`${name}_${kind}`]: Object.fromEntries(classes.map((each, at) => [String(each), found[at]])) };
  },
  regression: ({ target }, { label }) => ({ [target]: label }),
  outlier: (answer, { label, score }) => ({ outlier: label === -1, ...(score === undefined ? {} : { outlier_score: -score }) }),
  cluster: (answer, { label }) => ({ cluster: label }),
};

/** Spread grouped probabilities over a column for each class, as the service's CSV does. */
export function flat(answer) {
  const cells = Object.entries(answer).flatMap(([name, value]) =>
    value && typeof value === "object" ? Object.entries(value).map(([key, each]) => [`${name}.${key}`, each]) : [[name, value]],
  );
  return Object.fromEntries(cells);
}

/** Keep a spreadsheet from taking a text for a formula. */
export function harmless(cell) {
  const risky = typeof cell === "string" && FORMULA.test(cell) && !NUMBER.test(cell);
  return risky ? `'${cell}` : cell;
}

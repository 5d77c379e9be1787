// A table of rows: its columns found, its rows held against the contract, answered in parts, and given back.

import { check, flat, harmless, read } from "./contract.js";
import { element, faultTold, fill, told } from "./form.js";
import { reasonOf } from "./ask.js";

const { Papa } = globalThis; // a script of its own, which is no module
const AT_ONCE = 500;
const MOST_LISTED = 200;
const BINS = 10;

/** Fill `place` with what takes a file and gives its answers. */
export function answering(place, model, ask, { words, lang }) {
  const choose = element("input", { type: "file", id: "table", accept: ".csv,.tsv,.txt,text/csv" });
  const drop = element("div", { class: "drop" }, element("label", { for: "table" }, words.choose), choose);
  const template = element("button", { type: "button" }, words.template);
  const rest = element("div", { "aria-live": "polite" });
  const open = async (file) => {
    if (!file) return;
    try {
      rest.replaceChildren(matching(await parsed(file), model, ask, { words, lang }));
    } catch (error) {
      rest.replaceChildren(element("p", { class: "answer" }, fill(words.file_bad, error.message === "empty" ? words.file_empty : error.message)));
    }
  };
  choose.addEventListener("change", () => open(choose.files[0]));
  for (const kind of ["dragover", "drop"]) drop.addEventListener(kind, (event) => event.preventDefault());
  drop.addEventListener("drop", (event) => open(event.dataTransfer.files[0]));
  template.addEventListener("click", () => {
    const names = model.fields.map((each) => each.name);
    save(`${model.name}.csv`, Papa.unparse({ fields: names, data: [names.map((name) => cell(model.start[name]))] }));
  });
  place.append(element("p", {}, words.file_told), drop, element("p", {}, template), rest);
}

function parsed(file) {
  return new Promise((resolve, reject) => {
    Papa.parse(file, {
      skipEmptyLines: "greedy",
      complete: ({ data, errors }) => {
        const [header, ...rows] = data;
        const bad = errors.find((each) => each.type === "Quotes");
        if (bad) reject(new Error(bad.message));
        else if (!header || !rows.length) reject(new Error("empty"));
        else resolve({ header: header.map((each) => each.replace(/^\ufeff/, "").trim()), rows });
      },
      error: reject,
    });
  });
}

// ---- columns ------------------------------------------------------------------------------------------

const plain = (text) => text.normalize("NFKD").replace(/[^\p{L}\p{N}]/gu, "").toLowerCase();

/** Find the column of a field: its name, else its label, else what differs by case, blanks and signs alone. */
export function columnOf(field, header) {
  const wanted = [field.name, field.label].filter(Boolean);
  const exact = header.findIndex((each) => wanted.includes(each));
  return exact >= 0 ? exact : header.findIndex((each) => wanted.some((name) => plain(name) === plain(each)));
}

function matching({ header, rows }, model, ask, told) {
  const { words } = told;
  const selects = model.fields.map((field, at) => {
    const select = element("select", { id: `column-${at}` }, element("option", { value: -1 }, words.no_column));
    header.forEach((name, column) => select.append(element("option", { value: column }, name)));
    select.value = String(columnOf(field, header));
    return select;
  });
  const lines = model.fields.map((field, at) => element("div", { class: "field" }, element("label", { for: `column-${at}` }, field.label || field.name), selects[at]));
  const lacking = selects.some((each, at) => each.value === "-1" && model.fields[at].required);
  const columns = element("details", lacking ? { open: true } : {}, element("summary", {}, words.columns_told), element("div", { class: "fields" }, ...lines));
  const run = element("button", { type: "button", class: "main" }, words.run);
  const result = element("div", {});
  run.addEventListener("click", async () => {
    run.disabled = true;
    try {
      const places = selects.map((each) => Number(each.value));
      await answered({ header, rows, places }, model, ask, result, told);
    } finally {
      run.disabled = false;
    }
  });
  return element("div", {}, columns, element("p", {}, run), result);
}

// ---- rows ---------------------------------------------------------------------------------------------

async function answered({ header, rows, places }, model, ask, result, { words, lang }) {
  const progress = element("progress", { max: rows.length, value: 0, "aria-label": words.run });
  const amount = element("span", {}, fill(words.progress, 0, rows.length));
  result.replaceChildren(progress, " ", amount);
  const answers = new Array(rows.length).fill(null);
  const refused = [];
  for (let start = 0; start < rows.length; start += AT_ONCE) {
    await part(rows, start, { header, places, answers, refused }, model, ask, { words });
    progress.value = Math.min(rows.length, start + AT_ONCE);
    amount.textContent = fill(words.progress, told(progress.value, lang), told(rows.length, lang));
    await new Promise((resolve) => setTimeout(resolve)); // the page stays alive
  }
  result.replaceChildren(...summary({ header, rows, answers, refused }, model, { words, lang }));
}

async function part(rows, start, { header, places, answers, refused }, model, ask, { words }) {
  const sound = [];
  const refuse = (at, reason) => refused.push({ at, reason });
  rows.slice(start, start + AT_ONCE).forEach((cells, offset) => {
    const at = start + offset;
    if (cells.length !== header.length) return refuse(at, `${cells.length} / ${header.length} ${words.columns.toLowerCase()}`);
    const row = Object.create(null);
    model.fields.forEach((field, place) => (row[field.name] = places[place] < 0 ? null : read(field, cells[places[place]])));
    const found = check(model.fields, row);
    if (found.faults.length) return refuse(at, found.faults.map((each) => faultTold(each, model.fields, words)).join("; "));
    return sound.push({ at, row: found.row });
  });
  await asked(sound, ask, { answers, refuse, words });
}

/** Ask for rows together, and one by one where something is the matter with one of them. */
async function asked(sound, ask, { answers, refuse, words }) {
  if (!sound.length) return;
  try {
    const found = await ask(sound.map((each) => each.row));
    found.forEach((answer, at) => (answers[sound[at].at] = answer));
  } catch (error) {
    if (error.status && error.status !== 422) throw error;
    if (sound.length === 1) refuse(sound[0].at, reasonOf(error, words));
    else for (const each of sound) await asked([each], ask, { answers, refuse, words });
  }
}

function summary({ header, rows, answers, refused }, model, { words, lang }) {
  refused.sort((a, b) => a.at - b.at);
  const good = rows.map((cells, at) => ({ cells, found: answers[at] })).filter((each) => each.found);
  const made = [element("p", { class: "answer", id: "answered" }, fill(words.answered, told(good.length, lang)))];
  if (good.length) {
    made.push(button(words.download, () => save(`${model.name}-answers.csv`, withAnswers(header, good))));
    made.push(spread(good.map((each) => each.found), model, { words, lang }));
  }
  if (!refused.length) return made;
  const lines = refused.slice(0, MOST_LISTED).map(({ at, reason }) => element("tr", {}, element("th", { scope: "row" }, String(at + 2)), element("td", {}, reason)));
  const head = element("tr", {}, element("th", { scope: "col" }, words.row), element("th", { scope: "col" }, words.reason));
  const more = refused.length > MOST_LISTED ? [element("p", {}, fill(words.more, refused.length - MOST_LISTED))] : [];
  const table = element("table", { id: "refused" }, element("thead", {}, head), element("tbody", {}, ...lines));
  const reasons = refused.map(({ at, reason }) => [...rows[at], reason]);
  const all = () => save(`${model.name}-refused.csv`, Papa.unparse({ fields: header.map(cell), data: reasons.map((each) => each.map(cell)) }));
  made.push(element("p", { class: "answer", id: "rejected" }, fill(words.rejected, told(refused.length, lang))), button(words.download_rejected, all));
  return [...made, element("div", { class: "wide", tabindex: 0, role: "region", "aria-label": words.reason }, table), ...more];
}

function withAnswers(header, good) {
  const names = Object.keys(flat(good[0].found));
  const given = header.map((name) => (names.includes(name) ? `${name}_given` : name));
  const lines = good.map(({ cells, found }) => [...cells.map(cell), ...Object.values(flat(found)).map(cell)]);
  return Papa.unparse({ fields: [...given, ...names].map(cell), data: lines });
}

/** Show how often each answer was given, or how numbers are spread. */
function spread(found, model, { words, lang }) {
  const name = Object.keys(found[0])[0];
  const values = found.map((each) => each[name]);
  const counts = new Map();
  if (typeof values[0] === "number" && new Set(values).size > BINS) {
    const low = values.reduce((least, each) => Math.min(least, each));
    const size = (values.reduce((most, each) => Math.max(most, each)) - low) / BINS;
    const bin = (value) => Math.min(BINS - 1, Math.floor((value - low) / size));
    for (let at = 0; at < BINS; at += 1) counts.set(`${told(low + at * size, lang)} …`, 0);
    const keys = [...counts.keys()];
    for (const value of values) counts.set(keys[bin(value)], counts.get(keys[bin(value)]) + 1);
  } else {
    for (const value of values) {
      const key = typeof value === "boolean" ? (value ? words.yes : words.no) : String(value);
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
  }
  const most = Math.max(...counts.values());
  const lines = [...counts].slice(0, 20).map(([key, count]) =>
    element("div", { class: "bar" }, element("span", {}, key), element("progress", { max: most, value: count, "aria-label": key }), element("span", { class: "amount" }, told(count, lang))),
  );
  return element("figure", {}, element("figcaption", {}, `${words.distribution}: ${name}`), element("div", { class: "bars" }, ...lines));
}

function button(text, act) {
  const made = element("button", { type: "button" }, text);
  made.addEventListener("click", act);
  return element("p", {}, made);
}

const cell = (value) => (value === null || value === undefined ? "" : harmless(typeof value === "boolean" ? String(value) : value));

function save(name, text) {
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

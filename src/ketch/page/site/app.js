// The page that runs a model in the browser: what to ask, a file, and what the model is.

import { asking } from "./ask.js";
import { flat, shape } from "./contract.js";
import { answering } from "./file.js";
import { element, fill } from "./form.js";
import { evaluator } from "./program.js";
import { service } from "./service.js";

const LANGUAGES = ["en", "pt"];
const KEPT = "ketch-key"; // for as long as the page is open

function language() {
  const asked = new URLSearchParams(location.search).get("lang");
  const liked = [asked, ...(navigator.languages ?? [])].filter(Boolean).map((each) => each.slice(0, 2).toLowerCase());
  return liked.find((each) => LANGUAGES.includes(each)) ?? "en";
}

async function openGraph(program, encode) {
  const { runner } = await import("./runtime.js");
  return runner("model.onnx", program, encode);
}

/** Give what answers checked rows: the model itself, or the service that the page was made for. */
async function answerer(model) {
  if (model.url) return service(`${model.url}/predict`, () => sessionStorage.getItem(KEPT) ?? "");
  const run = await evaluator(model, openGraph);
  const ask = async (rows) => (await run(rows)).map((found) => shape(model.answer, found));
  await prove(model, ask);
  return ask;
}

/** Ask the golden rows first: a page that does not give their answers here must give none. */
async function prove(model, ask) {
  const rows = model.golden.map((each) => Object.assign(Object.create(null), each.row));
  for (const field of model.fields) for (const row of rows) row[field.name] ??= null;
  const found = rows.length ? await ask(rows) : [];
  found.forEach((answer, at) => {
    const wanted = Object.entries(flat(model.golden[at].answer));
    const own = flat(answer);
    const far = wanted.find(([name, value]) => typeof value === "number" && !(Math.abs(own[name] - value) <= model.tolerance * Math.max(1, Math.abs(value))));
    if (far) throw new Error(`${model.name} does not give its golden answers in this browser (${far[0]}: ${own[far[0]]}, not ${far[1]})`);
  });
}

function tabs(place, pages) {
  const list = element("div", { role: "tablist", class: "tabs" });
  const panels = pages.map(([id, title, start], at) => {
    const panel = element("section", { role: "tabpanel", id, "aria-labelledby": `tab-${id}`, hidden: at > 0 });
    const tab = element("button", { role: "tab", id: `tab-${id}`, "aria-controls": id, type: "button" }, title);
    let begun = false;
    const open = () => {
      for (const each of list.children) {
        each.setAttribute("aria-selected", String(each === tab));
        each.tabIndex = each === tab ? 0 : -1;
      }
      for (const each of panels) each.hidden = each !== panel;
      if (!begun) start(panel);
      begun = true;
    };
    tab.addEventListener("click", open);
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = list.children[(at + step + pages.length) % pages.length];
      next.focus();
      next.click();
    });
    list.append(tab);
    return panel;
  });
  place.append(list, ...panels);
  list.firstChild.click();
}

function about(place, model, { words }) {
  const row = (...cells) => element("tr", {}, ...cells.map((cell, at) => element(at ? "td" : "th", at ? {} : { scope: "row" }, String(cell))));
  const facts = [...Object.entries(model.facts)].map(([key, value]) => row(key, value));
  const fields = model.widgets.map((each, at) => row(each.label, words[model.fields[at].type], each.help, each.required ? words.no : words.yes));
  const head = element("tr", {}, ...[words.name, words.type, words.values, words.missing].map((each) => element("th", { scope: "col" }, each)));
  const table = (label, ...inside) => element("div", { class: "wide", tabindex: 0, role: "region", "aria-label": label }, element("table", {}, ...inside));
  place.append(
    element("h2", {}, words.limits),
    element("p", {}, words.limits_told),
    table(words.Fields, element("thead", {}, head), element("tbody", {}, ...fields)),
    element("h2", {}, words.facts),
    table(words.facts, element("tbody", { class: "facts" }, ...facts)),
  );
}

function keyed(place, words) {
  const input = element("input", { type: "password", id: "key", autocomplete: "off" });
  input.value = sessionStorage.getItem(KEPT) ?? "";
  input.addEventListener("change", () => sessionStorage.setItem(KEPT, input.value));
  place.append(element("p", { class: "field" }, element("label", { for: "key" }, words.key_given), input));
}

async function main() {
  const lang = language();
  document.documentElement.lang = lang === "pt" ? "pt-BR" : "en";
  const model = await (await fetch("model.json")).json();
  const told = { words: model.words[lang], lang: document.documentElement.lang };
  const { words } = told;
  document.title = model.name;
  document.getElementById("name").textContent = model.name;
  document.getElementById("told").textContent = `${words.answers} ${model.answer.target ?? "prediction"}. ${model.url ? "" : words.offline}`;
  const other = document.getElementById("other");
  other.textContent = words.other;
  other.lang = lang === "pt" ? "en" : "pt-BR";
  other.href = `?lang=${lang === "pt" ? "en" : "pt"}`;
  const place = document.getElementById("pages");
  place.textContent = words.wait;
  try {
    const ask = await answerer(model);
    place.replaceChildren();
    if (model.url) keyed(place, words);
    tabs(place, [
      ["ask", words.ask, (panel) => asking(panel, model, ask, told)],
      ["file", words.file, (panel) => answering(panel, model, ask, told)],
      ["about", words.about, (panel) => about(panel, model, told)],
    ]);
  } catch (error) {
    place.textContent = fill(words.broken, error.message);
    throw error;
  }
  if ("serviceWorker" in navigator && isSecureContext) await navigator.serviceWorker.register("sw.js");
}

main();

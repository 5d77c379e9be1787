// The live form on the page at GET / of a service: the form and the answers come from the service itself.

import { asking } from "./ask.js";
import { service } from "./service.js";

const place = document.getElementById("live");
const model = await (await fetch(place.dataset.form)).json();
place.replaceChildren();
await asking(place, model, service(place.dataset.predict), { words: model.words, lang: document.documentElement.lang });

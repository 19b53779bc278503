// The views of the page. All but the search are loaded when they are first opened: a module and its style.
// A module has `show(state)` and may have `start()`, called once; `leave()`, called when another view
// opens; `focusAgain(id)`, called when the viewer over it closes. Its section is `NAME-view` in the page.
import { Refusal } from "./api.js";
import { element } from "./dom.js";
import * as search from "./search_view.js";
import { server } from "./store.js";

// label: of the link in the header; without one, no view of its own but a part of others
// has: whether this server has it, by its answer to `health`; without one, each server does
// ofOne: it works on one index, not on several shards
const VIEWS = {
  search: { label: "Search", load: () => search },
  duplicates: { label: "Duplicates", ofOne: true, load: () => import("./duplicates.js"), style: "duplicates.css" },
  map: { label: "Map", ofOne: true, load: () => import("./map.js"), style: "map.css" },
  teach: { label: "Teach", has: ({ teach }) => teach, load: () => import("./teach.js"), style: "teach.css" },
  learn: { load: () => import("./learn.js"), style: "learn.css" },
  teach_this: { load: () => import("./teach_this.js") },
  errors: { label: "Errors", ofOne: true, load: () => import("./errors.js"), style: "errors.css", has: ({ collections }) => collections.some(({ classes }) => classes.filter(({ name }) => name).length > 1) },
  viewer: { load: () => import("./viewer.js"), style: "viewer.css" },
  heat: { load: () => import("./heat.js") },
};
const loaded = new Map(); // name -> promise of the module

// Name and label of each view that this server has.
export const views = () => Object.entries(VIEWS).filter(([, { label, has }]) => label && (has?.(server) ?? true)).map(([name, { label }]) => [name, label]);

// Whether a collection has a view that this server has.
export const isOf = (name, { shards }) => !(VIEWS[name].ofOne && shards);

export const hasView = (name) => views().some(([each]) => each === name);

export function loadView(name) {
  if (!loaded.has(name)) loaded.set(name, fetchView(VIEWS[name], name));
  return loaded.get(name);
}

async function fetchView({ load, style }, name) {
  try {
    const [module] = await Promise.all([load(), style && addStyle(style)]);
    module.start?.();
    return module;
  } catch (error) {
    loaded.delete(name);
    console.error(error);
    // Browsers remember a module that did not load: only a new page asks for it again.
    throw Object.assign(new Refusal(0, "This part of the page did not come. Is the server still running? Then load the page again."), { isFinal: true });
  }
}

function addStyle(name) {
  return new Promise((done, failed) => {
    const link = element("link", { rel: "stylesheet", href: `/page/${name}` });
    link.onload = done;
    link.onerror = () => {
      link.remove();
      failed(new Error(`${name} did not load`));
    };
    document.head.append(link);
  });
}

// Load what is likely to be opened next, so that it opens at once.
export function expect(name) {
  loadView(name).catch(() => {}); // whoever opens it is told
}

const whenIdle = window.requestIdleCallback ?? ((action) => setTimeout(action, 500));

export const expectWhenIdle = (name) => whenIdle(() => expect(name));

// The bar above: the links of the views, and which collection is searched.
import { byId, element } from "./dom.js";
import { addressOf } from "./state.js";
import { beginAnew, chooseCollection, current, currentCollection, openView, server } from "./store.js";
import { expect, isOf, views } from "./views.js";
import { counted } from "./words.js";

function follow(link, action) {
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    action();
  });
}

function linkOf([name, label]) {
  const link = element("a", { id: `to-${name}` }, label);
  follow(link, () => openView(name));
  for (const each of ["pointerenter", "focus"]) link.addEventListener(each, () => expect(name));
  return link;
}

// Once it is known what the server has.
export function makeHeader() {
  byId("views").replaceChildren(...views().map(linkOf));
  byId("collection").replaceChildren(...server.collections.map(({ name }) => element("option", { value: name }, name.replace(/\.index$/, ""))));
  byId("collection").hidden = server.collections.length < 2;
}

export function showHeader() {
  const state = current();
  for (const [name] of views()) {
    const link = byId(`to-${name}`);
    link.hidden = !isOf(name, currentCollection());
    link.href = addressOf({ ...state, compare: [], view: name });
    link.ariaCurrent = name === state.view ? "page" : null;
  }
  const { name, images } = currentCollection();
  byId("collection").value = name;
  byId("collection-size").textContent = counted(images, "picture");
}

export function startHeader() {
  follow(byId("brand"), beginAnew);
  byId("collection").addEventListener("change", (event) => chooseCollection(event.target.value));
}

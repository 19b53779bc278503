// Groups of duplicates: which picture to keep and why; set aside, undo.
import { ask, post, Refusal, showPicture, thumbnailAddress } from "./api.js";
import { breakable, byId, element } from "./dom.js";
import { problem } from "./problem.js";
import { entitle } from "./sections.js";
import { searchFor, server, setThreshold } from "./store.js";
import { toast } from "./toast.js";
import { apartButton, toldApart } from "./told_apart.js";
import { bytes, counted, folderOf, nameOf } from "./words.js";

export const DEFAULT_THRESHOLD = "0.15";
const PAGE = 20;
const groups = byId("groups");
let state = null;
let cursor = null;
let total = 0;
let running = null;
let mayChange = false;

export function start() {
  mayChange = server.allow_changes;
  byId("more-groups").onclick = () => load().catch(problem);
  byId("threshold").onchange = (event) => setThreshold(event.target.value);
  groups.onkeydown = press;
}

export function leave() {
  running?.abort();
}

export async function show(newState) {
  leave();
  running = new AbortController();
  [state, cursor] = [newState, null];
  entitle("Duplicates");
  byId("threshold").value = state.threshold || DEFAULT_THRESHOLD;
  groups.replaceChildren();
  byId("more-groups").hidden = true;
  byId("duplicates-summary").textContent = "Looking for duplicates …";
  await Promise.all([load(), showUndo()]);
}

async function load() {
  const { signal } = running;
  const answer = await patiently(
    () =>
      ask("duplicates", { threshold: state.threshold || DEFAULT_THRESHOLD, top: PAGE, cursor, collection: state.collection }, signal),
    signal,
  );
  total = answer.total;
  say("No two pictures are as alike as that.");
  groups.append(...answer.groups.map(group));
  cursor = answer.cursor;
  byId("more-groups").hidden = cursor === null;
}

function say(none) {
  byId("duplicates-summary").textContent = total ? `${counted(total, "group")}${total > 1 ? ", the largest first" : ""}.` : none;
}

async function patiently(request, signal) {
  for (;;) {
    try {
      return await request();
    } catch (error) {
      if (!(error instanceof Refusal) || error.status !== 503 || !error.retryAfter) throw error;
      await new Promise((done) => setTimeout(done, error.retryAfter * 1000));
      if (signal.aborted) throw new DOMException("stopped", "AbortError");
    }
  }
}

function group(given) {
  const chosen = new Set(given.others.filter((each) => !each.stays).map((each) => each.id));
  const button = element("button", { type: "button", className: "primary", hidden: !mayChange });
  const label = () => {
    button.disabled = chosen.size === 0;
    button.textContent = chosen.size ? `Set aside ${chosen.size}` : "Nothing to set aside";
  };
  const keeper = member(given.keeper, element("p", { className: "keep" }, "Keep"));
  keeper.classList.add("keeper");
  const others = given.others.map((each) => {
    const apart = apartButton(given.keeper, each, state.collection, () => left(item, given.keeper), again);
    if (each.stays) return member(each, element("p", { className: "stays" }, `Stays: ${each.stays}`), apart);
    if (!mayChange) return member(each, apart);
    const check = element("input", { type: "checkbox", checked: true });
    check.addEventListener("change", () => {
      if (check.checked) chosen.add(each.id);
      else chosen.delete(each.id);
      label();
    });
    return member(each, element("label", { className: "check" }, check, "Set aside", element("span", { className: "unseen" }, nameOf(each.path))), apart);
  });
  label();
  const item = element(
    "li",
    { className: "group", tabIndex: -1 },
    element("ul", { className: "members" }, keeper, ...others),
    element("div", { className: "why" }, element("p", {}, `Suggested: keep ${nameOf(given.keeper.path)}. ${given.why.charAt(0).toUpperCase()}${given.why.slice(1)}.`), button),
  );
  button.addEventListener("click", () => setAside(item, given.keeper.id, [...chosen], button));
  item.dataset.keeper = given.keeper.id;
  item.ariaLabel = `${given.others.length + 1} pictures; keep ${given.keeper.path}`;
  return item;
}

function member(image, ...extra) {
  const picture = element("img", { alt: "", decoding: "async" });
  const place = element("a", { className: "picture", href: `/?${new URLSearchParams({ collection: state.collection, id: image.id })}`, title: image.path }, picture);
  place.ariaLabel = `${image.path}: search for what is like it`;
  place.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    searchFor(image);
  });
  showPicture(picture, thumbnailAddress(image.id, state.collection, 256));
  return element(
    "li",
    { className: "member" },
    place,
    element("p", { className: "name" }, nameOf(image.path)),
    element("p", { className: "fine" }, ...breakable(folderOf(image.path))),
    element("p", { className: "fine" }, `${image.width} × ${image.height} · ${bytes(image.bytes)}${image.distance ? ` · distance ${image.distance.toFixed(3)}` : ""}`),
    ...extra,
  );
}

// Another group may hold what has left this one, so all are asked for again.
async function left(item, keeper) {
  const at = [...groups.children].indexOf(item);
  await again();
  const same = [...groups.children].find((each) => each.dataset.keeper === keeper.id);
  (same ?? groups.children[Math.min(at, groups.children.length - 1)] ?? byId("threshold")).focus();
}

const again = () => show(state);

async function setAside(item, keeper, ids, button) {
  button.disabled = true;
  try {
    const fields = [["collection", state.collection], ["keeper", keeper], ["threshold", state.threshold || DEFAULT_THRESHOLD], ...ids.map((each) => ["image", each])];
    const done = await post("duplicates/set_aside", fields);
    const next = item.nextElementSibling ?? item.previousElementSibling;
    item.remove();
    total -= 1;
    say("No group is left.");
    (next ?? byId("threshold")).focus();
    const left = done.left.length ? ` ${done.left.join("; ")}.` : "";
    toast(`${counted(done.moved, "picture")} set aside.${left}`, () => undo(done.undo));
    await showUndo();
  } catch (error) {
    button.disabled = false;
    problem(error);
  }
}

async function undo(name) {
  try {
    const fields = [["collection", state.collection], ["undo", name]];
    const done = await post("duplicates/undo", fields);
    const left = done.left.length ? ` ${done.left.join("; ")}.` : "";
    toast(`${counted(done.moved, "picture")} put back.${left}`);
    await show(state);
    if (document.activeElement === document.body) (groups.firstElementChild ?? byId("threshold")).focus();
  } catch (error) {
    problem(error);
  }
}

async function showUndo() {
  const { signal } = running;
  const [names, apart] = await Promise.all([
    mayChange ? ask("duplicates/set_aside", { collection: state.collection }, signal) : [],
    toldApart(state.collection, again, signal),
  ]);
  const list = byId("undo-list");
  list.replaceChildren(...(apart ? [apart] : []));
  if (!names.length) return;
  const rows = names.map((name) =>
    element("li", {}, element("span", {}, when(name)), element("button", { type: "button", className: "quiet", onclick: () => undo(name) }, "Put back")),
  );
  list.append(element("details", {}, element("summary", {}, `Set aside before: ${counted(names.length, "time")}`), element("ul", {}, ...rows)));
}

function when(name) {
  return new Date(name.replace(/^(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d).*/, "$1-$2-$3T$4:$5:$6Z")).toLocaleString();
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const item = event.target.closest(".group");
  if (event.key === "ArrowDown") item?.nextElementSibling?.focus();
  else if (event.key === "ArrowUp") item?.previousElementSibling?.focus();
  else if (event.key.toLowerCase() === "x" && mayChange) item?.querySelector(".why button").click();
  else return;
  event.preventDefault();
}

// Elements of the page, and new ones. Texts are set as texts, never as HTML.

export function byId(id) {
  return document.getElementById(id);
}

export const isTyping = (target) => target.matches?.("input:not([type=range], [type=checkbox], [type=file]), select, textarea");

export const within = (value, least, most) => Math.min(most, Math.max(least, value));

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((each) => each !== null));
  return made;
}

// A path that breaks after its slashes; where it must break elsewhere, not within its ending.
export function breakable(path) {
  const folders = path.split("/");
  const name = folders.pop();
  const at = name.lastIndexOf(".");
  const hasEnding = at > 0 && name.length - at <= 8;
  const last = hasEnding ? [name.slice(0, at), element("span", { className: "ending" }, name.slice(at))] : [name];
  return [...folders.flatMap((each) => [`${each}/`, element("wbr")]), ...last];
}

// An action that waits until it was not asked for again for a while.
export function later(action) {
  let timer = 0;
  return (given) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(given), 250);
  };
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

export function iconButton(name, label, onclick) {
  const button = element("button", { type: "button", title: label, onclick }, icon(name));
  button.ariaLabel = label;
  return button;
}

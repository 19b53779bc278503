// The parts of the page of which one is shown: a view, what stands in for an empty one, the form for the token.
import { byId } from "./dom.js";

export function showSection(name) {
  document.body.dataset.view = name;
  for (const each of byId("main").children) if (each.id.endsWith("-view")) each.hidden = each.id !== `${name}-view`;
}

export const shownSection = () => document.body.dataset.view;

export const entitle = (name) => (document.title = name ? `${name} · Deep Ranking` : "Deep Ranking");

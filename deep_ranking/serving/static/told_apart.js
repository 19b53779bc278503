// "Not a duplicate": pictures that people told apart are in no group together any more, until that is taken back.
import { ask, post } from "./api.js";
import { breakable, element } from "./dom.js";
import { problem } from "./problem.js";
import { server } from "./store.js";
import { toast } from "./toast.js";
import { counted, nameOf } from "./words.js";

const PAGE = 50; // pairs asked for at a time

export const mayTell = () => server.teach || server.allow_changes;

const rater = () => localStorage.getItem("deep-ranking-rater") || server.rater;

// The button of a picture in a group, or null; `gone` is called when it has left, `again` when it is back.
export function apartButton(keeper, image, collection, gone, again) {
  if (!mayTell() || !image.distance) return null; // equal files are duplicates
  const button = element("button", { type: "button", className: "link apart" }, "Not a duplicate", element("span", { className: "unseen" }, `: ${nameOf(image.path)}`));
  button.onclick = async () => {
    button.disabled = true;
    try {
      const { implied } = await post("duplicates/told_apart", [["collection", collection], ["keeper", keeper.id], ["image", image.id], ["rater", rater()]]);
      const teaches = implied && server.teach ? " “Learn now” will heed it." : "";
      toast(`${nameOf(image.path)} leaves the group.${teaches}`, () => alike([keeper.path, image.path], collection, again));
      await gone();
    } catch (error) {
      button.disabled = false;
      problem(error);
    }
  };
  return button;
}

// What was told apart, each pair with a way back; null for nothing.
export async function toldApart(collection, again, signal) {
  if (!mayTell()) return null;
  const found = await ask("duplicates/told_apart", { collection, top: PAGE }, signal);
  if (!found.total) return null;
  const list = element("ul");
  const more = element("button", { type: "button", className: "quiet" }, "Show more");
  const add = ({ pairs, cursor }) => {
    const rows = pairs.map(({ paths }) => {
      const back = element("button", { type: "button", className: "quiet", onclick: () => alike(paths, collection, again) }, "Take back");
      return element("li", {}, element("span", {}, ...breakable(paths[0]), " and ", ...breakable(paths[1])), back);
    });
    list.append(...rows);
    more.hidden = !cursor;
    more.onclick = () => showMore(cursor).catch(problem);
    return rows;
  };
  const showMore = async (cursor) => {
    const [first] = add(await ask("duplicates/told_apart", { collection, top: PAGE, cursor }, signal));
    first?.querySelector("button").focus();
  };
  add(found);
  return element("details", {}, element("summary", {}, `Told apart: ${counted(found.total, "pair")}`), list, more);
}

async function alike([image, other], collection, again) {
  try {
    await post("duplicates/alike", [["collection", collection], ["image", image], ["other", other], ["rater", rater()]]);
    toast("They may be duplicates again.");
    await again();
  } catch (error) {
    problem(error);
  }
}

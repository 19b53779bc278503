// "Teach this": the plus and minus examples of a search become answers that a model learns from.
import { post } from "./api.js";
import { byId } from "./dom.js";
import { problem } from "./problem.js";
import { current, server } from "./store.js";
import { toast } from "./toast.js";
import { counted } from "./words.js";

const KEPT = "deep-ranking-rater";

export async function teachThis() {
  const { collection, id, plus, minus } = current();
  const rater = localStorage.getItem(KEPT) || server.rater;
  if (!rater) return toast("Whose answers are they? Give your name in Teach first.");
  const own = (list) => list.filter((each) => typeof each === "string");
  const [more, less] = [own(plus), own(minus)];
  const left = plus.length + minus.length - more.length - less.length;
  const button = byId("teach-this");
  button.disabled = true;
  try {
    const fields = [["collection", collection], ["id", id], ["rater", rater], ...more.map((each) => ["positive", each]), ...less.map((each) => ["negative", each])];
    const { answers, already } = await post("teach/examples", fields);
    const leftOut = left ? ` ${counted(left, "picture")} of your own left out: answers are about the collection.` : "";
    if (answers) toast(`${counted(answers, "answer")} kept.${leftOut}`, () => takeBack(collection, rater, answers));
    else toast(already ? `These answers stand already.${leftOut}` : `Nothing to teach: no other picture ranks before.${leftOut}`);
  } catch (error) {
    problem(error);
  } finally {
    button.disabled = false;
  }
}

async function takeBack(collection, rater, answers) {
  try {
    await post("teach/examples/take_back", [["collection", collection], ["rater", rater], ["answers", String(answers)]]);
    toast(`${counted(answers, "answer")} taken back.`);
  } catch (error) {
    problem(error);
  }
}

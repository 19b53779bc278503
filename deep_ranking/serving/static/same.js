// Whether a picture is the same as another one: a copy, or itself.
import { uploadOf } from "./state.js";

const SAME_BELOW = 0.0005; // what is told as a distance of 0
export const DIGITS = 16; // of an id, that tell the content of its file
const digests = new WeakMap(); // of uploads

// What an id of the same content begins with; "" where nothing can tell.
export async function contentOf(state) {
  const upload = uploadOf(state);
  if (!upload) return state.id.slice(0, DIGITS);
  if (!crypto.subtle) return "";
  if (!digests.has(upload)) digests.set(upload, digestOf(upload));
  return digests.get(upload);
}

async function digestOf(upload) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await upload.arrayBuffer()));
  return [...digest.slice(0, DIGITS / 2)].map((each) => each.toString(16).padStart(2, "0")).join("");
}

export const isSame = ({ id, distance }, content) => (content !== "" && id.startsWith(content)) || (distance !== null && distance < SAME_BELOW);

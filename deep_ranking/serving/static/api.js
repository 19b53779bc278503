// Requests to the server. With a token, pictures are fetched too, because <img> sends no header.
import { sentence } from "./words.js";

const KEPT = "deep-ranking-token";
let token = sessionStorage.getItem(KEPT);

export class Refusal extends Error {
  constructor(status, text, retryAfter = 0) {
    super(text);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export function setToken(given) {
  token = given;
  if (given === null) sessionStorage.removeItem(KEPT);
  else sessionStorage.setItem(KEPT, given);
}

export const hasToken = () => token !== null;

async function send(address, options = {}) {
  const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
  let answer;
  try {
    answer = await fetch(address, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The server does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  let detail = "The server cannot answer this now.";
  try {
    detail = (await answer.json()).detail;
  } catch {
    // not an answer of this API
  }
  const seconds = Number(answer.headers.get("Retry-After")) || 0;
  throw new Refusal(answer.status, sentence(detail), seconds);
}

function get(path, parameters = {}, signal = undefined) {
  const given = Object.entries(parameters).filter(([, value]) => value);
  const query = given.length ? `?${new URLSearchParams(given)}` : "";
  return send(`/api/v1/${path}${query}`, { signal });
}

export const ask = async (...given) => (await get(...given)).json();

// Also the tag of the answer, which changes when it does.
export async function askTagged(...given) {
  const answer = await get(...given);
  return [await answer.json(), answer.headers.get("ETag") ?? ""];
}

export async function post(path, fields, signal = undefined) {
  const body = new FormData();
  for (const [name, value] of fields) if (value) body.append(name, value);
  return (await send(`/api/v1/${path}`, { method: "POST", body, signal })).json();
}

export function imageAddress(id, collection) {
  return `/api/v1/images/${id}?${new URLSearchParams({ collection })}`;
}

export function thumbnailAddress(id, collection, size) {
  const scaled = size * Math.min(2, window.devicePixelRatio || 1);
  const sent = [128, 256, 512].find((each) => each >= scaled * 0.85) ?? 1024;
  return `/api/v1/images/${id}/thumbnail?${new URLSearchParams({ size: sent, collection })}`;
}

async function fill(image) {
  try {
    const answer = await send(image.dataset.address);
    const address = URL.createObjectURL(await answer.blob());
    if (!("keeps" in image.dataset)) {
      image.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
    }
    image.src = address;
  } catch {
    image.dispatchEvent(new Event("error"));
  }
}

const nearby = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      nearby.unobserve(target);
      fill(target);
    }
  },
  { rootMargin: "600px" },
);

// Show a picture; `keeps` leaves its address usable, until the caller revokes it.
export function showPicture(image, address, { isLazy = true, keeps = false } = {}) {
  if (token === null) {
    image.loading = isLazy ? "lazy" : "eager";
    image.src = address;
    return;
  }
  image.dataset.address = address;
  if (keeps) image.dataset.keeps = "";
  if (isLazy) nearby.observe(image);
  else fill(image);
}

// Of a picture that leaves the page: what was asked for and is not there yet is no longer wanted.
export function dropPicture(image) {
  nearby.unobserve(image);
  image.removeAttribute("src");
}

export function openOriginal(id, collection) {
  const address = imageAddress(id, collection);
  if (token === null) window.open(address, "_blank", "noopener");
  else openFetched(address).catch(() => {});
}

async function openFetched(address) {
  const opened = window.open("", "_blank");
  const answer = await send(address);
  opened.location = URL.createObjectURL(await answer.blob());
}

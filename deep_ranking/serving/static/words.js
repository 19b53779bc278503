// Numbers as people say them.

export const WORDS = [
  [0.95, "Very likely the same", "very"],
  [0.75, "Probably the same", "probably"],
  [0.4, "Perhaps", "perhaps"],
  [0, "Unlikely", "unlikely"],
];
export const UNLIKELY_BELOW = 0.4;
export const NEAREST = 10; // pictures that tell whether anything is like the query

// How likely a result is of the query's class, in words and as a share; null where nothing tells it.
export function likenessOf({ isSame = false, probability }) {
  if (isSame) return { words: "The same picture", kind: "very", share: "" };
  if (probability === null) return null;
  const [, words, kind] = WORDS.find(([least]) => probability >= least);
  return { words, kind, share: percent(probability) };
}

export function percent(share) {
  if (share > 0.995) return ">99 %";
  if (share < 0.005) return "<1 %";
  return `${Math.round(share * 100)} %`;
}

export function bytes(count) {
  if (count < 1000) return `${count} B`;
  if (count < 1e6) return `${Math.round(count / 1000)} kB`;
  return `${(count / 1e6).toFixed(1)} MB`;
}

export function counted(count, noun, plural = `${noun}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? noun : plural}`;
}

export function folderOf(path) {
  return path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : "";
}

export function nameOf(path) {
  return path.slice(path.lastIndexOf("/") + 1);
}

export const captionOf = (picture) => [picture.class, picture.path].filter(Boolean).join(" · ");

export function sentence(detail) {
  const told = detail.replace(/^(image|positive|negative): /, "This picture: ");
  return told.charAt(0).toUpperCase() + told.slice(1) + (/[.?!]$/.test(told) ? "" : ".");
}

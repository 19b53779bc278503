// Pictures that come in: dropped, pasted, chosen or photographed.
import { byId } from "./dom.js";

export function startIntake(take) {
  for (const id of ["choose", "photograph", "replace", "photograph-again"]) {
    const input = byId(id);
    input.addEventListener("change", () => {
      take(input.files[0]);
      input.value = "";
    });
  }
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files][0];
    if (!file) return;
    event.preventDefault();
    take(file);
  });
  let depth = 0;
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  const veil = (isOver) => (byId("veil").hidden = !isOver);
  document.addEventListener("dragenter", (event) => {
    if (hasFiles(event)) veil(++depth > 0);
  });
  document.addEventListener("dragleave", (event) => {
    if (hasFiles(event)) veil(--depth > 0);
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    veil(false);
    take(event.dataTransfer.files[0]);
  });
}

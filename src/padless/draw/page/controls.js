// Input by pointer and keyboard; every change goes through the functions of page.js.

function listen() {
  find("lengths").addEventListener("input", readLengths);
  find("step").addEventListener("input", () => {
    const to = Number(find("step").value); // before stop() sets it back
    stop();
    go(to);
  });
  find("play").addEventListener("click", play);
  find("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme !== "dark"));
  dark.addEventListener("change", () => setTheme(dark.matches));
  for (const button of document.querySelectorAll("[data-example]")) {
    button.addEventListener("click", () => useExample(button.dataset.example));
  }
  new ResizeObserver(() => { fitBox(find("lengths")); place(); }).observe(find("figure"));
  listenToGrid(find("grid"));
  listenToMemory(find("memory"));
  document.addEventListener("keydown", (event) => {
    if (event.target !== document.body || event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = { ArrowLeft: step - 1, ArrowRight: step + 1, Home: 0, End: batch.steps - 1 };
    if (event.key in moves) { stop(); go(moves[event.key]); }
    else if (event.key === " ") play();
    else return;
    event.preventDefault();
  });
}

function listenToGrid(field) {
  const under = (event) => {
    const box = field.getBoundingClientRect();
    return cellAt(batch, places.grid, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  };
  field.addEventListener("pointermove", (event) => point(under(event)));
  field.addEventListener("pointerleave", () => point(null));
  field.addEventListener("click", (event) => { stop(); point(under(event)); go(found.step); });
  field.addEventListener("focus", () => field.matches(":focus-visible") && point(found ?? { step, slot: 0 }));
  field.addEventListener("blur", () => point(null));
  field.addEventListener("keydown", (event) => {
    const at = found ?? { step, slot: 0 };
    const line = places.grid.share, tenth = Math.ceil(batch.steps / 10);
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -line], ArrowDown: [0, line],
      PageUp: [-tenth, 0], PageDown: [tenth, 0], Home: [-batch.steps, 0], End: [batch.steps, 0] };
    if (!answer(event, moves, at)) return;
    const [steps, slots] = moves[event.key];
    point({ step: clamp(at.step + steps, 0, batch.steps - 1), slot: clamp(at.slot + slots, 0, batch.sequences - 1) });
  });
}

function listenToMemory(field) {
  const cell = (row) => (row < 0 ? null : placeOf(batch, row));
  const under = (event) => {
    const box = field.getBoundingClientRect();
    return cell(memoryAt(batch, places.memory, event.clientX - box.left, event.clientY - box.top));
  };
  const now = () => (found && rowAt(batch, found.step, found.slot) >= 0 ? found : { step, slot: 0 });
  field.addEventListener("pointermove", (event) => point(under(event)));
  field.addEventListener("pointerleave", () => point(null));
  field.addEventListener("click", (event) => { stop(); point(under(event)); if (found) go(found.step); });
  field.addEventListener("focus", () => field.matches(":focus-visible") && point(now()));
  field.addEventListener("blur", () => point(null));
  field.addEventListener("keydown", (event) => {
    const { exact, across } = places.memory;
    const line = exact ? across : Math.ceil(batch.rows / 100);
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -line, ArrowDown: line,
      PageUp: -10 * line, PageDown: 10 * line, Home: -batch.rows, End: batch.rows };
    if (!answer(event, moves, now())) return;
    const row = rowAt(batch, now().step, now().slot);
    point(cell(clamp(row + moves[event.key], 0, batch.rows - 1)));
  });
}

/** What both fields do alike: Enter goes to the step, Escape lets go; true where the key is one of `moves`. */
function answer(event, moves, at) {
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  if (event.key === "Enter") { stop(); go(at.step); }
  else if (event.key === "Escape") point(null);
  else if (event.key === " ") play();
  else if (!(event.key in moves)) return false;
  event.preventDefault();
  return event.key in moves;
}

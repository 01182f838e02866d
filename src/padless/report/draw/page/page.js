// The page: controls, numbers and the picture, all of one state.

const find = (id) => document.getElementById(id);
const picture = createPicture(find("canvas"));
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
const dark = window.matchMedia("(prefers-color-scheme: dark)");

let batch, places;
let step = 0, found = null, flight = 1, playing = null, drawing = 0;

// ---- the lengths

let complaint = 0;
function readLengths() {
  clearTimeout(complaint);
  const box = find("lengths");
  fitBox(box);
  try {
    const lengths = parseLengths(box.value);
    box.removeAttribute("aria-invalid");
    find("problem").textContent = "";
    take(arrange(lengths));
  } catch (error) {
    stop();
    box.setAttribute("aria-invalid", "true");
    // A moment's grace: half a number is no mistake yet.
    complaint = setTimeout(() => (find("problem").textContent = `${error.message} The picture keeps the last good lengths.`), 400);
  }
}

/** As many lines as the lengths take, up to what the style allows. */
function fitBox(box) {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

function take(next) {
  const atEnd = !batch || step === batch.steps - 1;
  batch = next;
  found = null;
  stop();
  step = atEnd ? batch.steps - 1 : Math.min(step, batch.steps - 1);
  find("step").max = batch.steps - 1;
  tellCosts();
  tellRuns();
  place();
  tellFound();
}

function useExample(name) {
  find("lengths").value = example(name).join(" ");
  step = 0;
  batch = null;
  readLengths();
}

// ---- the numbers

function tellCosts() {
  const { multiplications, additions } = costs(batch);
  const numbers = {
    saving: saving(batch),
    "mul-padded": counted(multiplications.padded), "mul-packed": counted(multiplications.packed),
    "mul-saved": counted(multiplications.padded - multiplications.packed),
    "add-padded": counted(additions.padded), "add-packed": counted(additions.packed),
    "add-saved": counted(additions.padded - additions.packed),
    sequences: counted(batch.sequences), steps: counted(batch.steps), rows: counted(batch.rows), cells: counted(batch.cells),
    fill: `${((100 * batch.rows) / batch.cells).toFixed(1)} %`,
  };
  for (const [id, text] of Object.entries(numbers)) find(id).textContent = text;
  document.title = `Why do we pack sequences? ${saving(batch)}`;
}

function tellRuns() {
  const shown = batch.runs.slice(0, 200);
  find("runs").replaceChildren(...shown.map(({ start, stop, size, row }) => {
    const line = document.createElement("tr");
    const steps = stop - start > 1 ? `${counted(start)} to ${counted(stop - 1)}` : counted(start);
    const rows = (stop - start) * size > 1 ? `${counted(row)} to ${counted(row + (stop - start) * size - 1)}` : counted(row);
    for (const text of [steps, counted(size), rows]) line.appendChild(document.createElement("td")).textContent = text;
    return line;
  }));
  const rest = batch.runs.length - shown.length;
  find("runs-caption").textContent = "Steps at which equally many sequences run" + (rest ? `; ${counted(rest)} more lines are left out` : "");
}

function tellStep() {
  const size = sizeAt(batch, step), packed = rowsThrough(batch, step), padded = batch.sequences * (step + 1);
  find("step").value = step;
  find("step").setAttribute("aria-valuetext", `step ${step} of 0 to ${batch.steps - 1}`);
  find("told").textContent = `${counted(step)}: ${counted(size)} of ${counted(batch.sequences)} still run`;
  find("padded-now").textContent = counted(batch.sequences, "row");
  find("packed-now").textContent = counted(size, "row");
  find("padded-sum").textContent = counted(padded);
  find("packed-sum").textContent = counted(packed);
  const share = (rows) => `${(100 * rows) / batch.cells}%`;
  find("padded-real").style.width = find("packed-real").style.width = share(packed);
  find("padded-waste").style.width = share(padded - packed);
}

function tellFound() {
  const scaled = [];
  const { grid, memory } = places;
  if (grid.share > 1) scaled.push(`one line is ${counted(grid.share)} sequences, paler where only some still run`);
  if (grid.cw < 1) scaled.push(`one pixel across is ${counted(Math.ceil(1 / grid.cw))} steps`);
  if (!memory.exact) scaled.push("memory is on the scale of all cells and shows the mean colour of neighbouring rows");
  find("scaled").textContent = scaled.length ? `Scaled: ${scaled.join("; ")}.` : "";
  find("found").textContent = found ? describe(found) :
    "Point at a cell to find its place in memory, and back; a click goes to its step.";
}

function describe({ step, slot }) {
  const row = rowAt(batch, step, slot);
  const head = `Sequence ${counted(batch.order[slot])}, step ${counted(step)}`;
  if (row < 0) {
    return `${head}: padding, for the sequence has ${counted(batch.lengths[slot], "row")}. Padded computes it all the same; in memory it is nowhere.`;
  }
  const first = row - slot;
  return `${head}: row ${counted(row)} in memory. Step ${counted(step)} begins at row ${counted(first)}, after the ` +
    `batches of the steps before; the sequence stands at place ${counted(slot)} of ${counted(sizeAt(batch, step))} in it.`;
}

// ---- the picture

function look() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return { ink: of("--ink"), quiet: of("--quiet"), card: of("--card"), edge: of("--edge"), accent: of("--accent"),
    hatch: of("--hatch"), faintHatch: of("--faint-hatch"), last: of("--last"), ahead: Number(of("--ahead")), font: getComputedStyle(document.body).fontFamily };
}

function place() {
  places = picture.show(batch, find("figure").clientWidth, look());
  put(find("grid"), places.grid);
  put(find("memory"), places.memory);
  redraw();
}

function put(field, { x, y, width, height }) {
  Object.assign(field.style, { left: `${x}px`, top: `${y}px`, width: `${width}px`, height: `${height}px` });
}

function redraw() {
  tellStep();
  if (!drawing) {
    drawing = requestAnimationFrame(() => {
      drawing = 0;
      picture.draw({ step, found, flight });
    });
  }
}

function point(cell) {
  found = cell;
  tellFound();
  redraw();
}

// ---- time

function go(to) {
  step = clamp(to, 0, batch.steps - 1);
  flight = 1;
  redraw();
}

function stop() {
  if (playing) cancelAnimationFrame(playing);
  playing = null;
  flight = 1;
  find("play").textContent = "Play";
  find("told").setAttribute("aria-live", "polite");
  if (places) redraw();
}

function play() {
  if (playing) return stop();
  const begin = step >= batch.steps - 1 ? 0 : step;
  const pace = clamp(12000 / batch.steps, 40, 1000); // milliseconds a step
  const stride = Math.ceil(batch.steps / 300);
  const flies = places.memory.exact && places.grid.cw >= 8 && pace >= 400 && !calm.matches;
  find("play").textContent = "Pause";
  find("told").setAttribute("aria-live", "off"); // or a screen reader would be told every step
  found = null;
  tellFound();
  let started;
  const frame = (now) => {
    started ??= now;
    const passed = (now - started) / pace;
    step = Math.min(begin + stride * Math.floor(passed), batch.steps - 1);
    flight = flies ? Math.min((passed % 1) / 0.65, 1) : 1;
    if (begin + stride * passed >= batch.steps) return stop();
    redraw();
    playing = requestAnimationFrame(frame);
  };
  playing = requestAnimationFrame(frame);
}

// ---- hands

function listen() {
  find("lengths").addEventListener("input", readLengths);
  find("step").addEventListener("input", () => {
    const to = Number(find("step").value); // before stop() sets it back
    stop();
    go(to);
  });
  find("play").addEventListener("click", play);
  find("theme").addEventListener("click", () => wear(document.documentElement.dataset.theme !== "dark"));
  dark.addEventListener("change", () => wear(dark.matches));
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
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -places.grid.share], ArrowDown: [0, places.grid.share],
      PageUp: [-Math.ceil(batch.steps / 10), 0], PageDown: [Math.ceil(batch.steps / 10), 0],
      Home: [-batch.steps, 0], End: [batch.steps, 0] };
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
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -line, ArrowDown: line, PageUp: -10 * line, PageDown: 10 * line,
      Home: -batch.rows, End: batch.rows };
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

function wear(isDark) {
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  find("theme").setAttribute("aria-pressed", String(isDark));
  if (batch) place();
}

wear(dark.matches);
listen();
readLengths();

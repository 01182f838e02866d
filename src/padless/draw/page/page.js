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
    complaint = setTimeout(() => {
      find("problem").textContent = `${error.message} ${say("The picture keeps the last good lengths.")}`;
    }, 400);
  }
}

/** As many lines as the lengths take, up to what the style allows. */
function fitBox(box) {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

function take(next) {
  const atEnd = !batch || step === batch.steps - 1;
  step = atEnd ? next.steps - 1 : Math.min(step, next.steps - 1);
  batch = next;
  found = null;
  stop();
  find("step").max = batch.steps - 1;
  showCosts();
  showRuns();
  place();
  showFound();
}

function useExample(name) {
  find("lengths").value = example(name).join(" ");
  batch = null; // so that it is shown whole, at its last step
  readLengths();
}

// ---- the numbers

function showCosts() {
  const { multiplications, additions } = costs(batch);
  const numbers = {
    saving: saving(batch),
    "mul-padded": counted(multiplications.padded), "mul-packed": counted(multiplications.packed),
    "mul-saved": counted(multiplications.padded - multiplications.packed),
    "add-padded": counted(additions.padded), "add-packed": counted(additions.packed),
    "add-saved": counted(additions.padded - additions.packed),
    sequences: counted(batch.sequences), steps: counted(batch.steps), rows: counted(batch.rows),
    cells: counted(batch.cells), fill: `${((100 * batch.rows) / batch.cells).toFixed(1)} %`,
  };
  for (const [id, text] of Object.entries(numbers)) find(id).textContent = text;
  document.title = `${say("Why do we pack sequences?")} ${saving(batch)}`;
}

const span = (start, stop) => (stop - start > 1
  ? say("{first} to {last}", { first: counted(start), last: counted(stop - 1) }) : counted(start));

function showRuns() {
  const shown = batch.runs.slice(0, 200);
  find("runs").replaceChildren(...shown.map(({ start, stop, size, row }) => {
    const line = document.createElement("tr");
    const steps = span(start, stop), rows = span(row, row + (stop - start) * size);
    for (const text of [steps, counted(size), rows]) line.appendChild(document.createElement("td")).textContent = text;
    return line;
  }));
  const rest = batch.runs.length - shown.length;
  const more = rest ? say("; {lines} left out", { lines: counted(rest, "more line") }) : "";
  find("runs-caption").textContent = say("Steps with the same number of running sequences") + more;
}

function showStep() {
  const size = sizeAt(batch, step), packed = rowsThrough(batch, step), padded = batch.sequences * (step + 1);
  find("step").value = step;
  find("step").setAttribute("aria-valuetext", say("step {step} of 0 to {last}", { step, last: batch.steps - 1 }));
  find("status").textContent = say("{step}: {size} of {sequences} still run",
    { step: counted(step), size: counted(size), sequences: counted(batch.sequences) });
  find("padded-now").textContent = counted(batch.sequences, "row");
  find("packed-now").textContent = counted(size, "row");
  find("padded-sum").textContent = counted(padded);
  find("packed-sum").textContent = counted(packed);
  const share = (rows) => `${(100 * rows) / batch.cells}%`;
  find("padded-real").style.width = find("packed-real").style.width = share(packed);
  find("padded-waste").style.width = share(padded - packed);
}

function showFound() {
  const scaled = [];
  const { grid, memory } = places;
  if (grid.share > 1) {
    scaled.push(say("one line is {n} sequences, paler where only some still run", { n: counted(grid.share) }));
  }
  if (grid.cw < 1) scaled.push(say("one pixel shows {n} steps", { n: counted(Math.ceil(1 / grid.cw)) }));
  if (!memory.exact) {
    scaled.push(say("memory is on the scale of all cells and shows the mean colour of neighbouring rows"));
  }
  find("scaled").textContent = scaled.length ? say("Scaled: {how}.", { how: scaled.join("; ") }) : "";
  find("found").textContent = found ? describe(found) :
    say("Point at a cell to see its place in memory, or the reverse; click to go to its step.");
}

function describe({ step, slot }) {
  const row = rowAt(batch, step, slot);
  const head = say("Sequence {sequence}, step {step}: ", { sequence: counted(batch.order[slot]), step: counted(step) });
  if (row < 0) {
    return head + say("padding, since the sequence has {rows}. The padded batch computes it anyway; " +
      "the packed batch does not store it.",
      { rows: counted(batch.lengths[slot], "row") });
  }
  return head + say("row {row} in memory. Step {step} begins at row {first}, after the batches of the steps before, " +
    "and the sequence is at position {place} in it.",
    { row: counted(row), step: counted(step), first: counted(row - slot), place: counted(slot) });
}

// ---- the picture

function look() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return { ink: of("--ink"), quiet: of("--quiet"), card: of("--card"), edge: of("--edge"), accent: of("--accent"),
    hatch: of("--hatch"), faintHatch: of("--faint-hatch"), last: of("--last"), ahead: Number(of("--ahead")),
    font: getComputedStyle(document.body).fontFamily };
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
  showStep();
  if (!drawing) {
    drawing = requestAnimationFrame(() => {
      drawing = 0;
      picture.draw({ step, found, flight });
    });
  }
}

function point(cell) {
  found = cell;
  showFound();
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
  find("play").textContent = say("Play");
  find("status").setAttribute("aria-live", "polite");
  if (places) redraw();
}

function play() {
  if (playing) return stop();
  const begin = step >= batch.steps - 1 ? 0 : step;
  const pace = clamp(12000 / batch.steps, 40, 1000); // milliseconds a step
  const stride = Math.ceil(batch.steps / 300);
  const flies = places.memory.exact && places.grid.cw >= 8 && pace >= 400 && !calm.matches;
  find("play").textContent = say("Pause");
  find("status").setAttribute("aria-live", "off"); // or a screen reader would announce every step
  found = null;
  showFound();
  step = begin;
  redraw();
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

// ---- the theme

function setTheme(isDark) {
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  find("theme").setAttribute("aria-pressed", String(isDark));
  if (batch) place();
}

setTheme(dark.matches);
listen();
readLengths();

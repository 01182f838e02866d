// Positions of everything on the canvas, in CSS pixels; draws nothing.

const CELL = 36; // at most
const TALLEST = 396; // the grid, at most
const DEEPEST = 330; // the memory, cell by cell, at most
const HEAD = 50; // above grid and memory: a title, and the numbers of the steps
const DIGIT = 8; // the width of a figure, amply

const digits = (number) => counted(number).length * DIGIT;

/** Grid and memory, side by side where both are small and fit, else one under the other. */
function geometry(batch, width) {
  const gutter = Math.max(digits(batch.sequences - 1) + 14, 40);
  const beside = besideEachOther(batch, width, gutter);
  if (beside) return beside;
  const grid = gridOf(batch, { x: gutter, space: width - gutter, most: CELL });
  const memory = memoryOf(batch, { x: 0, y: grid.end + 30, width, cell: Math.min(grid.cw, grid.ch, 32) });
  return { grid, memory, height: memory.end + 6 };
}

function besideEachOther(batch, width, gutter) {
  const most = Math.min(CELL, Math.floor(TALLEST / batch.sequences));
  const across = gutter + batch.steps * most;
  if (width < 700 || most < 20 || across > 0.5 * width) return null;
  const grid = gridOf(batch, { x: gutter, space: width - gutter, most });
  for (let cell = most; cell >= 20; cell -= 2) {
    const x = across + 48;
    const memory = memoryOf(batch, { x, y: 0, width: width - x, cell });
    if (memory.exact && memory.end <= Math.max(grid.end, 260)) {
      return { grid, memory, height: Math.max(grid.end, memory.end) + 6 };
    }
  }
  return null;
}

function gridOf(batch, { x, space, most }) {
  const lines = Math.min(batch.sequences, TALLEST >> 1); // two pixels a line at least
  const share = Math.ceil(batch.sequences / lines);
  const shown = Math.ceil(batch.sequences / share);
  const cw = Math.min(most, space / batch.steps);
  const ch = Math.min(Math.max(cw, 22), most, TALLEST / shown);
  const y = HEAD, height = ch * shown, width = cw * batch.steps;
  const numbered = cw >= 8 + digits(Math.max(batch.sequences, batch.steps - 1));
  const below = numbered ? 44 : 68;
  return { x, y, width, height, cw, ch, share, shown, numbered,
    labelled: share === 1 && ch >= 15 && cw >= 6 + digits(batch.sequences - 1),
    named: share === 1 && ch >= 11, end: y + height + below };
}

function memoryOf(batch, { x, y, width, cell }) {
  const margin = Math.max(digits(batch.rows) + 12, 34);
  const top = y + HEAD;
  for (let size = Math.max(Math.floor(cell), 16); size >= 16; size -= 2) {
    let across = Math.floor((width - margin) / size);
    if (across >= 8) across -= across % 4; // lines that begin at round numbers
    const lines = Math.ceil(batch.cells / across);
    const pitch = size + (lines * (size + 22) <= DEEPEST ? 22 : 6); // space for a note under the rows of a step, or not
    if (lines * pitch > DEEPEST) continue;
    const height = lines * pitch;
    return { exact: true, x: x + margin, y: top, width: Math.min(across, batch.cells) * size, height, across, lines, size,
      pitch, end: top + height };
  }
  return { exact: false, x, y: top, width, height: 44, place: width / batch.cells, end: top + 44 + 20 };
}

/** The cell of the grid under a point of the grid, by its fractions of width and height. */
function cellAt(batch, grid, across, down) {
  const step = Math.min(Math.floor(across * batch.steps), batch.steps - 1);
  const line = Math.min(Math.floor(down * grid.shown), grid.shown - 1);
  return { step: Math.max(step, 0), slot: Math.min(Math.max(line, 0) * grid.share, batch.sequences - 1) };
}

/** The row under a point of the memory, by pixels from its corner; -1 where nothing is stored. */
function memoryAt(batch, memory, x, y) {
  let row;
  if (memory.exact) {
    const line = Math.floor(y / memory.pitch), column = Math.floor(x / memory.size);
    row = column < 0 || column >= memory.across ? -1 : line * memory.across + column;
  } else {
    row = Math.floor(x / memory.place);
  }
  return row >= 0 && row < batch.rows ? row : -1;
}

/** The middle of a cell of the grid. */
function middleOfCell(grid, step, slot) {
  return [grid.x + (step + 0.5) * grid.cw, grid.y + (Math.floor(slot / grid.share) + 0.5) * grid.ch];
}

/** The middle of a row in memory. */
function middleOfRow(memory, row) {
  if (!memory.exact) return [memory.x + (row + 0.5) * memory.place, memory.y + memory.height / 2];
  const line = Math.floor(row / memory.across);
  return [memory.x + ((row % memory.across) + 0.5) * memory.size, memory.y + line * memory.pitch + memory.size / 2];
}

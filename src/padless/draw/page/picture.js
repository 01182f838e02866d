// Draws one moment of a batch on the canvas: which step is computed, which cell is pointed at.

/** What is drawn: the batch and its places, and how the page looks. */
function createPicture(canvas) {
  const context = canvas.getContext("2d");
  const { setLook, hatch, title, write, note } = createDrawing(canvas, context);
  let batch, places, theme, colours, strip;

  function show(next, width, look) {
    batch = next;
    theme = look;
    setLook(look);
    places = geometry(batch, width);
    colours = sequenceColours(batch, theme.last);
    strip = places.memory.exact ? null : stripColours();
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(places.height * ratio);
    canvas.style.height = `${places.height}px`;
    return places;
  }

  function stripColours() {
    const pieces = Math.max(1, Math.min(batch.rows, Math.ceil(batch.rows * places.memory.place)));
    const bounds = Array.from({ length: pieces + 1 }, (_, i) => Math.floor((i * batch.rows) / pieces));
    return meanColours(batch, colours, bounds);
  }

  /** `moment`: step, found ({step, slot} or null), flight (0 to 1: the rows of `step` on their way to memory). */
  function draw(moment) {
    const ratio = window.devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    drawGrid(moment);
    drawSizes(moment);
    if (places.memory.exact) drawMemory(moment);
    else drawStrip(moment);
    if (moment.found) drawFound(moment.found);
    if (moment.flight < 1) drawFlight(moment);
  }

  // ---- the grid

  function drawGrid({ step }) {
    const { x, y, width, height, cw, ch, share, shown } = places.grid;
    const done = (step + 1) * cw;
    title(say("Padded: {cells}", { cells: counted(batch.cells, "cell") }), x, y - 33);
    hatch(x, y, done, height, theme.hatch);
    hatch(x + done, y, width - done, height, theme.faintHatch);
    const gap = ch >= 10 ? 2 : ch >= 5 ? 1 : 0;
    for (let line = 0; line < shown; line++) {
      const first = line * share, last = Math.min(first + share, batch.sequences) - 1;
      const longest = batch.lengths[first], shortest = batch.lengths[last];
      const top = Math.round(y + line * ch), high = Math.round(y + (line + 1) * ch) - top - gap;
      context.fillStyle = theme.card;
      if (longest) context.fillRect(x, top, Math.max(longest * cw, 1), high + gap);
      context.fillStyle = colours[(first + last) >> 1];
      bar(x, top, longest * cw, high, done, shortest < longest ? 0.5 : 1);
      if (shortest && shortest < longest) bar(x, top, shortest * cw, high, done, 1);
    }
    context.fillStyle = theme.card;
    if (cw >= 5) for (let s = 1; s < batch.steps; s++) context.fillRect(x + s * cw - 1, y, cw >= 12 ? 2 : 1, height);
    names();
    if (places.grid.labelled) labels(step);
    context.strokeStyle = theme.ink;
    context.lineWidth = 2;
    context.strokeRect(x + step * cw - 1, y - 1, Math.max(cw, 1) + 1, height + 2);
  }

  /** A sequence, or several: in full colour as far as it is computed. */
  function bar(x, y, width, height, done, strength) {
    if (!width) return;
    const full = Math.min(width, done);
    context.globalAlpha = strength;
    context.fillRect(x, y, Math.max(full, 1), height);
    context.globalAlpha = strength * theme.ahead;
    if (width > full) context.fillRect(x + full, y, width - full, height);
    context.globalAlpha = 1;
  }

  function names() {
    const { x, y, height, ch, shown, named } = places.grid;
    if (named) {
      for (let slot = 0; slot < batch.sequences; slot++) {
        write(`${batch.order[slot]}`, x - 8, y + (slot + 0.5) * ch, theme.quiet, "right");
      }
    } else if (shown > 1) {
      context.save();
      context.translate(x - 14, y + height / 2);
      context.rotate(-Math.PI / 2);
      write(say("longest first"), 0, 0, theme.quiet, "center");
      context.restore();
    }
  }

  function labels(step) {
    const { cw, ch, x, y } = places.grid;
    batch.lengths.forEach((length, slot) => {
      for (let s = 0; s < length; s++) {
        const ink = s <= step ? inkOn(colours[slot]) : theme.ink;
        write(`${batch.order[slot]}`, x + (s + 0.5) * cw, y + (slot + 0.5) * ch - 0.5, ink, "center");
      }
    });
  }

  function drawSizes({ step }) {
    const { x, y, width, height, cw, numbered } = places.grid;
    const bottom = y + height;
    if (numbered) {
      for (let s = 0; s < batch.steps; s++) {
        const now = s === step;
        write(counted(s), x + (s + 0.5) * cw, y - 10, now ? theme.ink : theme.quiet, "center", now);
        write(counted(sizeAt(batch, s)), x + (s + 0.5) * cw, bottom + 15, now ? theme.ink : theme.quiet, "center", now);
      }
      write(say("step"), x - 8, y - 10, theme.quiet, "right");
      write(say("batch sizes"), x, bottom + 34, theme.quiet, "left");
      return;
    }
    const high = 40, base = bottom + 8 + high;
    context.fillStyle = theme.accent;
    const columns = Math.min(batch.steps, Math.floor(width));
    for (let column = 0; column < columns; column++) {
      const first = Math.floor((column * batch.steps) / columns);
      const tall = (high * sizeAt(batch, first)) / batch.sequences;
      context.globalAlpha = first <= step ? 1 : theme.ahead;
      const left = Math.round(x + (column * width) / columns), right = Math.round(x + ((column + 1) * width) / columns);
      context.fillRect(left, base - tall, right - left, tall);
    }
    context.globalAlpha = 1;
    note(say("step {step}", { step: counted(step) }), x + (step + 0.5) * cw, y - 12, x, x + width);
    note(say("batch size {size}", { size: counted(sizeAt(batch, step)) }), x + (step + 0.5) * cw, base + 13, x, x + width);
  }

  // ---- memory

  const neverComputed = () => say("{cells} never computed", { cells: counted(batch.cells - batch.rows, "cell") });

  function drawMemory({ step, flight }) {
    const { x, y, across, size, pitch, lines } = places.memory;
    const missing = `, ${neverComputed()}`;
    const head = say("Packed: {rows} in memory", { rows: counted(batch.rows, "row") });
    title(head, x, y - 33, batch.rows < batch.cells ? missing : "");
    if (lines > 1) write(say("row"), x - 8, y - 10, theme.quiet, "right");
    const landed = rowsThrough(batch, step) - (flight < 1 ? sizeAt(batch, step) : 0);
    const fits = size >= 6 + digits(batch.sequences - 1);
    for (const run of batch.runs) {
      for (let row = run.row; row < run.row + (run.stop - run.start) * run.size; row++) {
        const slot = (row - run.row) % run.size;
        const left = x + (row % across) * size, top = y + Math.floor(row / across) * pitch;
        context.fillStyle = colours[slot];
        context.globalAlpha = row < landed ? 1 : theme.ahead;
        context.fillRect(left + (slot ? 0 : 3), top, size - (slot ? 1 : 4), size);
        context.globalAlpha = 1;
        if (fits) {
          const ink = row < landed ? inkOn(colours[slot]) : theme.ink;
          write(`${batch.order[slot]}`, left + size / 2 + (slot ? 0 : 1), top + size / 2, ink, "center");
        }
      }
    }
    context.strokeStyle = theme.faintHatch;
    context.lineWidth = 1;
    for (let row = batch.rows; row < batch.cells; row++) {
      const left = x + (row % across) * size, top = y + Math.floor(row / across) * pitch;
      context.strokeRect(left + 2.5, top + 0.5, size - 5, size - 1);
    }
    for (let line = 0; line < lines && line * across < batch.rows; line++) {
      write(counted(line * across), x - 8, y + line * pitch + size / 2, theme.quiet, "right");
    }
    outlineStep(step);
  }

  /** The rows of the step in memory, which may go on in the next line. */
  function outlineStep(step) {
    const { x, y, across, size, pitch } = places.memory;
    const end = rowsThrough(batch, step);
    context.strokeStyle = theme.ink;
    context.lineWidth = 2;
    for (let row = end - sizeAt(batch, step); row < end; ) {
      const line = Math.floor(row / across), stop = Math.min(end, (line + 1) * across);
      context.strokeRect(x + (row % across) * size, y + line * pitch - 2, (stop - row) * size + 1, size + 4);
      row = stop;
    }
    const first = end - sizeAt(batch, step);
    if (pitch - size < 18) return;
    const middle = x + (Math.min((first % across) + sizeAt(batch, step), across) + (first % across)) * size / 2;
    const under = y + Math.floor(first / across) * pitch + size + 11;
    note(say("step {step}: {rows}", { step: counted(step), rows: counted(sizeAt(batch, step), "row") }), middle, under, x, x + across * size);
  }

  function drawStrip({ step }) {
    const { x, y, width, height, place } = places.memory;
    title(say("Packed: {rows} in memory", { rows: counted(batch.rows, "row") }), x, y - 16);
    const end = rowsThrough(batch, step), all = batch.rows * place;
    strip.forEach((colour, i) => {
      context.fillStyle = colour;
      const left = (i * all) / strip.length;
      context.globalAlpha = left < end * place ? 1 : theme.ahead;
      context.fillRect(x + left, y, Math.max(all / strip.length, 1), height);
    });
    context.globalAlpha = 1;
    context.strokeStyle = theme.edge;
    context.lineWidth = 1;
    context.setLineDash([2, 3]);
    if (all < width) context.strokeRect(x + all + 0.5, y + 0.5, width - all - 1, height - 1);
    context.setLineDash([]);
    const missing = neverComputed();
    if (width - all > 8 * missing.length) write(missing, x + (all + width) / 2, y + height / 2, theme.quiet, "center");
    const first = end - sizeAt(batch, step);
    context.strokeStyle = theme.ink;
    context.lineWidth = 2;
    context.strokeRect(x + first * place - 1, y - 2, Math.max((end - first) * place, 1) + 2, height + 4);
    note(say("from row {row}", { row: counted(first) }), x + first * place, y + height + 14, x, x + width);
  }

  // ---- what moves

  function drawFound({ step, slot }) {
    const { grid, memory } = places;
    const from = middleOfCell(grid, step, slot);
    const row = rowAt(batch, step, slot);
    context.strokeStyle = theme.accent;
    context.lineWidth = 3;
    context.strokeRect(from[0] - Math.max(grid.cw, 4) / 2, from[1] - Math.max(grid.ch, 4) / 2,
      Math.max(grid.cw, 4), Math.max(grid.ch, 4) - (grid.ch >= 6 ? 2 : 0));
    if (row < 0) return;
    const to = middleOfRow(memory, row);
    const wide = memory.exact ? memory.size : 4, high = memory.exact ? memory.size : memory.height;
    context.strokeRect(to[0] - wide / 2, to[1] - high / 2, wide, high);
    arc(from, to, Math.max(grid.cw, 4), Math.max(grid.ch, 4), high);
  }

  /** From the edge of the cell to the edge of the row, so that neither label is crossed. */
  function arc([x0, y0], [x1, y1], wide, high, highThere) {
    const beside = places.memory.y < places.grid.y + 20;
    if (beside) x0 += wide / 2;
    else y0 += high / 2;
    y1 -= highThere / 2;
    const pull = 0.4 * (beside ? x1 - x0 : y1 - y0);
    context.lineWidth = 2;
    context.beginPath();
    context.moveTo(x0, y0);
    if (beside) context.bezierCurveTo(x0 + pull, y0, x1, y1 - 30, x1, y1);
    else context.bezierCurveTo(x0, y0 + pull, x1, y1 - pull, x1, y1);
    context.stroke();
    context.fillStyle = theme.accent;
    context.beginPath();
    context.arc(x1, y1, 4, 0, 2 * Math.PI);
    context.fill();
  }

  function drawFlight({ step, flight }) {
    const { grid, memory } = places;
    const eased = flight * flight * (3 - 2 * flight);
    for (let slot = 0; slot < sizeAt(batch, step); slot++) {
      const from = middleOfCell(grid, step, slot), to = middleOfRow(memory, rowAt(batch, step, slot));
      const size = grid.cw + (memory.size - grid.cw) * eased;
      const x = from[0] + (to[0] - from[0]) * eased, y = from[1] + (to[1] - from[1]) * eased;
      context.fillStyle = colours[slot];
      context.fillRect(x - size / 2 + 1, y - size / 2 + 1, size - 2, size - 2);
      if (grid.labelled) write(`${batch.order[slot]}`, x, y, inkOn(colours[slot]), "center");
    }
  }

  return { show, draw };
}

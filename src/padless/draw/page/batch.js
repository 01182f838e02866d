// The numbers of one batch. Steps are kept as runs of equal batch size, so a billion steps cost no more than eight.

const MOST_SEQUENCES = {{most_sequences}};
const MOST_STEPS = {{most_steps}};

/** Lengths out of what was typed; an Error whose message names the first culprit. */
function parseLengths(text) {
  const words = text.split(/[\s,;[\]()]+/).filter(Boolean);
  if (!words.length) throw new Error(say("Type at least one length, such as 4 6 8."));
  if (words.length > MOST_SEQUENCES) {
    throw new Error(say("{n} sequences are more than this page draws ({most}).",
      { n: counted(words.length), most: counted(MOST_SEQUENCES) }));
  }
  const lengths = words.map((word, i) => {
    const named = `lengths[${i}] = ${word.length > 24 ? word.slice(0, 24) + "…" : word}`;
    if (!/^[+-]?\d+(\.0*)?$/.test(word)) throw new Error(say("{length} is not a whole number.", { length: named }));
    const value = Number(word);
    if (value < 0) throw new Error(say("{length} is negative.", { length: named }));
    if (value > MOST_STEPS) {
      throw new Error(say("{length} is more steps than this page draws ({most}).",
        { length: named, most: counted(MOST_STEPS) }));
    }
    return value;
  });
  if (!lengths.some(Boolean)) throw new Error(say("Every length is 0, so there is no row to draw."));
  return lengths;
}

/** The batch as packing orders it: longest first, equal lengths in the caller's order. */
function arrange(given) {
  const order = given.map((_, i) => i).sort((a, b) => given[b] - given[a] || a - b);
  const lengths = order.map((i) => given[i]);
  const runs = [];
  let start = 0, row = 0;
  for (let slot = lengths.length - 1; slot >= 0; slot--) {
    const size = slot + 1, stop = lengths[slot];
    if (stop > start) {
      runs.push({ start, stop, size, row });
      row += (stop - start) * size;
      start = stop;
    }
  }
  const sequences = lengths.length, steps = lengths[0];
  return { order, lengths, runs, sequences, steps, rows: row, cells: sequences * steps,
    nonempty: lengths.filter(Boolean).length };
}

/** The last run whose `key` is at most `value`. */
function runOf(batch, key, value) {
  let low = 0, high = batch.runs.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (batch.runs[middle][key] <= value) low = middle;
    else high = middle;
  }
  return batch.runs[low];
}

/** How many sequences run at a step: batch_sizes[step]. */
function sizeAt(batch, step) {
  return runOf(batch, "start", step).size;
}

/** The row in memory of a cell; -1 for padding, which has none. */
function rowAt(batch, step, slot) {
  if (step >= batch.lengths[slot]) return -1;
  const run = runOf(batch, "start", step);
  return run.row + (step - run.start) * run.size + slot;
}

/** Step and slot of a row in memory. */
function placeOf(batch, row) {
  const run = runOf(batch, "row", row);
  const within = row - run.row;
  return { step: run.start + Math.floor(within / run.size), slot: within % run.size };
}

/** The row with which the step after `step` begins: all rows up to `step`. */
function rowsThrough(batch, step) {
  const run = runOf(batch, "start", step);
  return run.row + (step - run.start + 1) * run.size;
}

/** Operations of one output column at width 1: n multiplications and n - 1 additions a sequence of n rows. */
function costs(batch) {
  return {
    multiplications: { padded: batch.cells, packed: batch.rows },
    additions: { padded: batch.cells - batch.sequences, packed: batch.rows - batch.nonempty },
  };
}

/** What packing saves, in the words of the command line. */
function saving(batch) {
  return say("{rows} of {cells} cells are real: {saved} of {padded} multiplications saved",
    { rows: counted(batch.rows), cells: counted(batch.cells), saved: counted(batch.cells - batch.rows),
      padded: counted(batch.cells) });
}

const FIGURES = new Intl.NumberFormat("en-US");
/** A number, with a noun in its number: "row", "cell", "more line". */
function counted(number, noun) {
  const figures = FIGURES.format(number);
  const translated = TEXTS[`{n} ${noun}`];
  if (translated) return translated.replace("{n}", figures);
  return noun ? `${figures} ${noun}${number === 1 ? "" : "s"}` : figures;
}

/** Lengths to try: the same at every visit. */
function example(name) {
  let state = 42;
  const uniform = () => ((state = (state * 48271) % 2147483647) / 2147483647);
  const many = (count, median, spread) => Array.from({ length: count }, () => {
    const normal = Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
    return Math.max(1, Math.round(median * Math.exp(spread * normal)));
  });
  return {
    few: () => [4, 6, 8, 5, 4, 3, 7, 8],
    equal: () => Array(6).fill(6),
    outlier: () => [3, 4, 30, 2, 5, 3, 4, 2, 3, 4],
    sentences: () => many(64, 14, 0.5),
    documents: () => many(500, 220, 0.7),
  }[name]();
}

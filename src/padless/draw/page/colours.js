// One colour a sequence, as in every other picture of padless; no colour is used without a label.

const FEW = {{few}};
const MANY = {{many}};

const partsOf = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
const hexOf = (parts) => "#" + parts.map((part) => Math.round(part).toString(16).padStart(2, "0")).join("");

/** The colour of each slot; `last` replaces black, which cannot be seen on a dark page. */
function sequenceColours(batch, last) {
  if (batch.sequences <= FEW.length) {
    return batch.order.map((index) => (index === FEW.length - 1 ? last : FEW[index]));
  }
  return batch.order.map((_, slot) => {
    const place = (slot / (batch.sequences - 1)) * (MANY.length - 1);
    const left = Math.min(Math.floor(place), MANY.length - 2);
    const near = partsOf(MANY[left]), far = partsOf(MANY[left + 1]);
    return hexOf(near.map((part, i) => part + (far[i] - part) * (place - left)));
  });
}

/** Black or white, whichever is read better on the colour. */
function inkOn(colour) {
  const [r, g, b] = partsOf(colour).map((part) => part / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000000" : "#ffffff";
}

/** What an eye sees from afar: the mean colour of the rows in memory between neighbouring bounds. */
function meanColours(batch, colours, bounds) {
  const add = (sums, parts, times = 1) => sums.map((sum, i) => sum + times * parts[i]);
  const bySlot = [[0, 0, 0]];
  for (const colour of colours) bySlot.push(add(bySlot.at(-1), partsOf(colour)));
  const byRun = new Map();
  let sums = [0, 0, 0];
  for (const run of batch.runs) {
    byRun.set(run, sums);
    sums = add(sums, bySlot[run.size], run.stop - run.start);
  }
  const before = (row) => {
    const run = runOf(batch, "row", row);
    const within = row - run.row;
    return add(add(byRun.get(run), bySlot[run.size], Math.floor(within / run.size)), bySlot[within % run.size]);
  };
  const at = bounds.map(before);
  return at.slice(1).map((after, i) =>
    hexOf(after.map((sum, part) => (sum - at[i][part]) / Math.max(bounds[i + 1] - bounds[i], 1))));
}

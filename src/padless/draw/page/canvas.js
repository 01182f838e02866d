// What the picture is drawn with; knows no batch.

const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

function createDrawing(canvas, context) {
  let theme;
  const setLook = (look) => { theme = look; };

  /** Padding: slanted lines, so that it differs by more than its colour. */
  function hatch(x, y, width, height, colour) {
    if (width <= 0) return;
    context.save();
    context.beginPath();
    context.rect(x, y, width, height);
    context.clip();
    context.strokeStyle = colour;
    context.lineWidth = 1;
    context.beginPath();
    for (let at = -height; at < width; at += 6) {
      context.moveTo(x + at, y + height);
      context.lineTo(x + at + height, y);
    }
    context.stroke();
    context.restore();
  }

  /** A heading, with `more` after it if that fits. */
  function title(text, x, y, more = "") {
    context.font = `600 15px ${theme.font}`;
    context.fillStyle = theme.ink;
    context.textAlign = "left";
    context.textBaseline = "alphabetic";
    context.fillText(text, x, y);
    const end = x + context.measureText(text).width;
    context.font = `15px ${theme.font}`;
    context.fillStyle = theme.quiet;
    if (more && end + context.measureText(more).width < canvas.clientWidth) context.fillText(more, end, y);
  }

  function write(text, x, y, colour, align, bold = false) {
    context.font = `${bold ? "700 " : ""}13px ${theme.font}`;
    context.fillStyle = colour;
    context.textAlign = align;
    context.textBaseline = "middle";
    context.fillText(text, x, y + 1);
  }

  /** What is said of the step: bold, in the middle of `x`, between `left` and `right`. */
  function note(text, x, y, left, right) {
    context.font = `700 13px ${theme.font}`;
    const half = context.measureText(text).width / 2;
    write(text, clamp(x, left + half, Math.max(right - half, left + half)), y, theme.ink, "center", true);
  }

  return { setLook, hatch, title, write, note };
}

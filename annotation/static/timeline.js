/** Timeline: annotated and propagated frames, and the area and confidence of each object, a pixel column at a time. */
import { CURRENT, STALE } from "./clipstate.js";

const TRACK_HEIGHT = 22, ROW_HEIGHT = 18, MARGIN = 6;
const LOW = 0.8, HIGH = 0.97;               // confidences with the colours at the ends of the scale
const COLOURS = [[205, 62, 62], [224, 160, 40], [46, 150, 110]];

export class Timeline {
  /** @param root element with two canvases, .track and .rows, and .cursor; onScrub is called with a frame */
  constructor(root, state, palette, onScrub) {
    Object.assign(this, { root, state, palette, frame: 0, drawing: false });
    [this.track, this.rows] = root.querySelectorAll("canvas");
    this.cursor = root.querySelector(".cursor");
    const scrub = (event) => onScrub(this.frameAt(event.clientX));
    root.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      root.setPointerCapture(event.pointerId);
      scrub(event);
    });
    root.addEventListener("pointermove", (event) => root.hasPointerCapture(event.pointerId) && scrub(event));
    root.addEventListener("scroll", () => this.redraw());
    new ResizeObserver(() => this.redraw()).observe(root);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  setFrame(frame) {
    this.frame = frame;
    this.root.setAttribute("aria-valuenow", frame);
    this.root.setAttribute("aria-valuemax", Math.max(0, this.state.frames - 1));
    this.placeCursor();
  }

  get gutter() { return this.root.clientWidth < 700 ? 24 : 112; }
  get span() { return Math.max(1, this.root.clientWidth - this.gutter - MARGIN); }

  frameAt(clientX) {
    const x = clientX - this.root.getBoundingClientRect().left - this.gutter;
    return Math.max(0, Math.min(this.state.frames - 1, Math.floor((x / this.span) * this.state.frames)));
  }

  placeCursor() {
    const width = Math.max(3, this.span / Math.max(1, this.state.frames));
    const x = this.gutter + ((this.frame + 0.5) / Math.max(1, this.state.frames)) * this.span - width / 2;
    this.cursor.style.transform = `translateX(${x}px)`;
    this.cursor.style.width = `${width}px`;
  }

  redraw() {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.drawing = false;
    this.colours = Object.fromEntries(["text", "muted", "line", "none", "stale", "current", "mark", "doubtful"].map(
      (name) => [name, getComputedStyle(this.root).getPropertyValue(`--${name}`)]));
    this.columns = columnRanges(this.state.frames, Math.round(this.span * devicePixelRatio));
    this.drawTrack(this.prepare(this.track, TRACK_HEIGHT));
    this.drawRows(this.prepare(this.rows, ROW_HEIGHT * this.state.objects.length));
    this.cursor.style.height = `${TRACK_HEIGHT + ROW_HEIGHT * this.state.objects.length}px`;
    this.placeCursor();
  }

  prepare(canvas, height) {
    const ratio = devicePixelRatio;
    Object.assign(canvas, { width: Math.round(this.root.clientWidth * ratio), height: Math.round(height * ratio) });
    canvas.style.height = `${height}px`;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    return context;
  }

  bar(context, column, y, height, colour) {
    context.fillStyle = colour;
    context.fillRect(this.gutter + column / devicePixelRatio, y, 1 / devicePixelRatio, height);
  }

  drawTrack(context) {
    const { state, colours } = this;
    if (this.gutter > 60) this.text(context, "Frames", 8, TRACK_HEIGHT / 2, colours.muted);
    const colourOf = ([start, end]) => {
      const states = state.state.subarray(start, end);
      return states.includes(STALE) ? colours.stale : states.includes(CURRENT) ? colours.current : colours.none;
    };
    this.columns.forEach((range, column) => this.bar(context, column, 8, 8, colourOf(range)));
    this.marks(state.doubtful).forEach((x) => this.drawMark(context, x, 21, 17, colours.doubtful));
    this.marks(state.annotated).forEach((x) => {
      this.drawMark(context, x, 1, 8, colours.mark);
      context.fillRect(x - 1, 8, 2, 8);
    });
  }

  /** The places of marked frames; several in one place are one mark. */
  marks(marks) {
    const places = new Set(), { gutter, span } = this;
    marks.forEach((mark, frame) => mark && places.add(Math.round(gutter + ((frame + 0.5) / marks.length) * span)));
    return [...places];
  }

  drawMark(context, x, base, tip, colour) {
    context.fillStyle = colour;
    context.beginPath();
    context.moveTo(x - 4, base);
    context.lineTo(x + 4, base);
    context.lineTo(x, tip);
    context.fill();
  }

  drawRows(context) {
    const top = this.root.scrollTop - TRACK_HEIGHT, bottom = top + this.root.clientHeight;
    this.state.objects.forEach((object, index) => {
      const y = index * ROW_HEIGHT;
      if (y + ROW_HEIGHT >= top && y <= bottom) this.drawRow(context, object, y);
    });
  }

  drawRow(context, { label, name }, y) {
    const { colours } = this, figures = this.state.figures.get(label);
    context.fillStyle = `rgb(${this.palette[label]})`;
    context.fillRect(8, y + 4, 10, 10);
    if (this.gutter > 60) this.text(context, name, 24, y + ROW_HEIGHT / 2, colours.text);
    context.fillStyle = colours.line;
    context.fillRect(this.gutter, y + ROW_HEIGHT - 1, this.span, 1);
    if (!figures) return;
    const largest = Math.max(1, figures.area.reduce((most, area) => Math.max(most, area), 0));
    this.columns.forEach(([start, end], column) => {
      let area = 0, confidence = 1;
      for (let frame = start; frame < end; frame++) {
        if (figures.area[frame] === 0) continue;
        area = Math.max(area, figures.area[frame]);
        confidence = Math.min(confidence, figures.confidence[frame]);
      }
      const height = area && Math.max(2, (area / largest) * (ROW_HEIGHT - 3));
      if (height) this.bar(context, column, y + ROW_HEIGHT - 1 - height, height, confidenceColour(confidence));
    });
  }

  /** Write into the gutter. */
  text(context, text, x, y, colour) {
    context.fillStyle = colour;
    context.fillText(text, x, y);
    context.clearRect(this.gutter - 6, y - 10, this.root.clientWidth, 20);
  }
}

/** The range of frames of each pixel column. */
function columnRanges(frames, columns) {
  return Array.from({ length: frames ? columns : 0 }, (_, column) => {
    const start = Math.floor((column * frames) / columns);
    return [start, Math.max(start + 1, Math.floor(((column + 1) * frames) / columns))];
  });
}

function confidenceColour(confidence) {
  const place = 2 * Math.max(0, Math.min(1, (confidence - LOW) / (HIGH - LOW))), index = Math.min(1, Math.floor(place));
  const [a, b] = [COLOURS[index], COLOURS[index + 1]], part = Math.round((place - index) * 8) / 8;
  return `rgb(${a.map((value, i) => Math.round(value + (b[i] - value) * part))})`;
}

/** The tools that draw on the stage. Points are in pixels of the frame. */
import { addStroke, areFor } from "./hints.js";
import { boundingBox, bounds, clipped, drawLine, fillPolygon, union } from "./raster.js";

const CLOSE_PIXELS = { mouse: 9, pen: 14, touch: 22 };
const DOUBLE_CLICK_MS = 350;
const MIN_BOX = 4;

class Tool {
  /** @param kit {editor, grabcut, view, clip, diameter, background, onDraw, onProgress, notify} */
  constructor(kit) { Object.assign(this, { kit, active: false }); }
  key() { return false; }
  draw() {}
  cancel() { this.active = false; }

  /** End what is being drawn, so that the frame can be left without losing it. */
  settle() { if (this.active) this.up(); }

  /** The hints of this object and frame, with a stroke that is painted by hand. */
  hintsWith(stroke) {
    const { hints, frame, label } = this.kit.editor;
    return areFor(hints, frame, label) ? addStroke(hints, stroke) : hints;
  }
}

class Brush extends Tool {
  constructor(kit, erase) {
    super(kit);
    this.erase = erase;
  }

  down(point) {
    this.edit = this.kit.editor.begin();
    this.active = true;
    this.points = [point];
    this.move([point]);
  }

  move(points) {
    const { clip: { width, height }, editor: { label, overlay }, diameter } = this.kit, { map } = this.edit;
    const [value, only] = this.erase ? [0, label] : [label, null];
    for (const point of points) {
      overlay.update(drawLine(map, width, height, this.points.at(-1), point, diameter / 2, value, only));
      this.points.push(point);
    }
  }

  up() {
    this.active = false;
    const stroke = { object: !this.erase, points: this.points, radius: this.kit.diameter / 2 };
    this.kit.editor.commit(this.edit, this.hintsWith(stroke));
  }

  cancel() {
    this.active = false;
    this.kit.editor.cancel();
  }
}

class Polygon extends Tool {
  constructor(kit) {
    super(kit);
    this.points = [];
    this.downTime = -Infinity;
  }

  down(point, event) {
    const { scale } = this.kit.view, reach = CLOSE_PIXELS[event.pointerType];
    const near = (other) => other && Math.hypot(point.x - other.x, point.y - other.y) * scale < reach;
    const again = event.timeStamp - this.downTime < DOUBLE_CLICK_MS && near(this.points.at(-1));
    this.closing = this.points.length > 2 && (again || near(this.points[0]));
    this.downTime = event.timeStamp;
    this.active = true;
    if (!this.closing && !again) this.points.push(point);
    this.kit.onProgress();
  }

  move(points) { if (!this.closing) this.points.splice(-1, 1, points.at(-1)); }

  up() {
    this.active = false;
    if (this.closing) this.close();
  }

  cancel() {
    if (!this.closing) this.points.pop();
    this.active = this.closing = false;
    this.kit.onProgress();
  }

  key(key) {
    if (!this.points.length) return false;
    if (key === "Enter") this.close();
    else if (key === "Escape") this.clear();
    else if (key === "Backspace") this.points.pop();
    else return false;
    return true;
  }

  close() {
    const points = this.points, { editor, clip } = this.kit;
    const edit = points.length > 2 ? editor.begin() : null;
    this.clear();
    if (!edit) return;
    fillPolygon(edit.map, clip.width, clip.height, points, editor.label);
    editor.commit(edit, this.hintsWith({ object: true, points }));
  }

  clear() {
    this.points = [];
    this.closing = this.active = false;
    this.kit.onProgress();
  }

  settle() { if (this.points.length) this.close(); }

  draw(context, hover) {
    if (!this.points.length) return;
    const { view } = this.kit, points = this.points.map((point) => view.toStage(point));
    path(context, hover && !this.active ? [...points, hover] : points);
    context.fill();
    twoTone(context);
    points.forEach(({ x, y }, index) => {
      context.beginPath();
      context.arc(x, y, index === 0 ? 6 : 3.5, 0, 7);
      context.fillStyle = index === 0 ? "#ffd54a" : "#fff";
      context.fill();
      context.stroke();
    });
  }
}

class Box extends Tool {
  down(point) {
    this.active = true;
    this.start = this.end = point;
  }

  move(points) { this.end = points.at(-1); }

  up() {
    this.active = false;
    const { editor, grabcut, clip, notify } = this.kit;
    const box = clipped(bounds([this.start, this.end]), clip.width, clip.height);
    if (box.x1 - box.x0 < MIN_BOX || box.y1 - box.y0 < MIN_BOX) return;
    editor.objects.ensureSelected();
    const { frame, label, map } = editor, before = map && objectBox(map, label, clip);
    const elsewhere = before && (before.x0 >= box.x1 || before.x1 <= box.x0 || before.y0 >= box.y1 ||
      before.y1 <= box.y0);
    grabcut.segment({ frame, label, box, strokes: [] }).then(() => elsewhere && notify(
      `The box replaced the mask of ${editor.objects.nameOf(label)}. For another object: Undo, then Add object.`));
  }

  draw(context) {
    if (!this.active) return;
    const { view } = this.kit;
    box(context, view.toStage(this.start), view.toStage(this.end), []);
  }
}

class Scribble extends Tool {
  down(point, event) {
    this.active = true;
    this.object = event.button !== 2 && !this.kit.background;
    this.points = [point];
  }

  move(points) { this.points.push(...points); }

  up() {
    this.active = false;
    const { editor, grabcut } = this.kit, { points, object } = this;
    editor.objects.ensureSelected();
    const { hints, frame, label } = editor;
    const session = areFor(hints, frame, label) ? hints : { frame, label, box: this.boxOfObject(), strokes: [] };
    const next = addStroke(session, { object, points, radius: this.radius });
    grabcut.segment(object && next.box ? { ...next, box: this.extended(next.box, points) } : next);
  }

  get radius() { return Math.max(1.5, Math.min(this.kit.clip.width, this.kit.clip.height) / 160); }

  /** A box around the pixels that the object has already, with a margin; null if it has none. */
  boxOfObject() {
    const { editor: { map, label }, clip: { width, height } } = this.kit;
    const found = objectBox(map, label, { width, height });
    if (!found) return null;
    const dx = Math.ceil((found.x1 - found.x0) * 0.1) + 2, dy = Math.ceil((found.y1 - found.y0) * 0.1) + 2;
    return clipped({ x0: found.x0 - dx, y0: found.y0 - dy, x1: found.x1 + dx, y1: found.y1 + dy }, width, height);
  }

  extended(box, points) { return clipped(union(box, bounds(points)), this.kit.clip.width, this.kit.clip.height); }
  draw(context) { if (this.active) stroke(context, this.kit.view, this); }
}

/** The tool in use, and the layer over the frame on which it shows what is being drawn. */
export class Toolbox {
  constructor(kit, layer) {
    Object.assign(this, { kit, layer, context: layer.getContext("2d"), hoverPoint: null, drawing: false });
    this.tools = { box: new Box(kit), scribble: new Scribble(kit), polygon: new Polygon(kit),
      brush: new Brush(kit, false), eraser: new Brush(kit, true) };
    this.select("box");
  }

  select(name) {
    if (this.name !== name) this.tool?.settle();
    this.name = name;
    this.tool = this.tools[name];
    this.redraw();
  }

  get usesHints() { return this.name === "box" || this.name === "scribble"; }

  /** Whether a pointer is drawing now. */
  get active() { return this.tool.active; }

  down(point, event) {
    const { editor, grabcut } = this.kit;
    if (event.button === 2 && this.name !== "scribble") return;
    if (!this.usesHints && grabcut.isRunning(editor.frame)) return;
    if (!editor.map) {
      this.kit.notify("The masks of this frame are not loaded yet.");
      return;
    }
    this.kit.onDraw();
    this.hoverPoint = this.kit.view.toStage(point);
    this.tool.down(point, event);
    this.redraw();
  }

  move(points) {
    this.hoverPoint = this.kit.view.toStage(points.at(-1));
    if (this.active) this.tool.move(points);
    this.redraw();
  }

  up() {
    if (this.active) this.tool.up();
    this.redraw();
  }

  cancel() {
    if (this.active) this.tool.cancel();
    this.redraw();
  }

  hover(point) {
    this.hoverPoint = point;
    this.redraw();
  }

  settle() {
    this.tool.settle();
    this.redraw();
  }

  /** Whether the tool used a key. */
  key(key) {
    const used = this.tool.key(key) || key === "Escape";
    if (key === "Escape" && this.active) this.tool.cancel();
    else if (key === "Escape" && this.usesHints) this.kit.editor.hints = null;
    if (used) this.kit.onProgress();
    this.redraw();
    return used;
  }

  redraw() {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.drawing = false;
    const { context, layer, kit: { view, editor } } = this, ratio = devicePixelRatio;
    const width = Math.round(view.stage.clientWidth * ratio), height = Math.round(view.stage.clientHeight * ratio);
    if (layer.width !== width || layer.height !== height) Object.assign(layer, { width, height });
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.fillStyle = "rgb(255 255 255 / 0.2)";
    if (this.usesHints && areFor(editor.hints, editor.frame, editor.label)) this.drawHints(editor.hints);
    this.tool.draw(context, this.hoverPoint);
    if ((this.name === "brush" || this.name === "eraser") && this.hoverPoint) this.drawCursor();
  }

  drawHints({ box: corners, strokes }) {
    const { context, kit: { view } } = this;
    const corner = (x, y) => view.toStage({ x, y });
    if (corners) box(context, corner(corners.x0, corners.y0), corner(corners.x1, corners.y1), [6, 4]);
    strokes.filter((hint) => hint.radius !== undefined).forEach((hint) => stroke(context, view, hint));
  }

  drawCursor() {
    const { x, y } = this.hoverPoint;
    this.context.beginPath();
    this.context.arc(x, y, Math.max(1, (this.kit.diameter / 2) * this.kit.view.scale), 0, 7);
    twoTone(this.context);
  }
}

function path(context, points) {
  context.beginPath();
  points.forEach(({ x, y }) => context.lineTo(x, y));
}

/** Stroke a path so that it is visible on any frame. */
function twoTone(context, dash = []) {
  context.setLineDash([]);
  context.lineWidth = 3;
  context.strokeStyle = "rgb(0 0 0 / 0.6)";
  context.stroke();
  context.setLineDash(dash);
  context.lineWidth = 1.5;
  context.strokeStyle = "#fff";
  context.stroke();
  context.setLineDash([]);
}

function box(context, a, b, dash) {
  context.beginPath();
  context.rect(a.x, a.y, b.x - a.x, b.y - a.y);
  twoTone(context, dash);
}

function stroke(context, view, { points, radius, object }) {
  const width = Math.max(2, 2 * radius * view.scale);
  path(context, [...points, points.at(-1)].map((point) => view.toStage(point)));
  context.lineCap = context.lineJoin = "round";
  for (const [extra, colour] of [[2, "rgb(0 0 0 / 0.6)"], [0, object ? "#4ade80" : "#ff6b6b"]]) {
    context.lineWidth = width + extra;
    context.strokeStyle = colour;
    context.stroke();
  }
}

function objectBox(map, label, { width, height }) {
  return boundingBox({ x0: 0, y0: 0, x1: width, y1: height }, width, (index) => map[index] === label);
}

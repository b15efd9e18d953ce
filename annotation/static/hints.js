/**
 * Hints for GrabCut, kept while an object is refined on a frame: {frame, label, box, strokes}. The box is a rectangle
 * or null; a stroke is {object, points, radius}, or without a radius a filled polygon. They are never modified.
 */
import { Edit } from "./history.js";
import { drawLine, fillPolygon } from "./raster.js";

const OBJECT = 1, BACKGROUND = 2;

export function addStroke(hints, stroke) { return { ...hints, strokes: [...hints.strokes, stroke] }; }

export function areFor(hints, frame, label) {
  return hints !== null && hints.frame === frame && hints.label === label;
}

export function hintMap({ strokes }, width, height) {
  const map = new Uint8Array(width * height);
  for (const { object, points, radius } of strokes) {
    const value = object ? OBJECT : BACKGROUND;
    if (radius === undefined) fillPolygon(map, width, height, points, value);
    else points.forEach((point, i) => drawLine(map, width, height, points[Math.max(0, i - 1)], point, radius, value));
  }
  return map;
}

/** Asks the server for the mask that fits the hints, and makes it the selected object's. */
export class GrabCut {
  /** @param actions onBusy(), notify(message) */
  constructor({ api, clip, labels }, editor, actions) {
    Object.assign(this, { api, clip, labels, editor, actions, running: new Map() });
  }

  isRunning(frame = null) {
    return frame === null ? this.running.size > 0 : [...this.running.values()].some((run) => run.hints.frame === frame);
  }

  /** Only the answer to the latest hints for an object on a frame is used, since they contain the earlier ones. */
  async segment(hints) {
    const session = `${hints.frame} ${hints.label}`;
    const run = { hints, before: this.running.get(session)?.before ?? this.editor.hints };
    this.editor.hints = hints;
    if (!hints.box && !hints.strokes.some((stroke) => stroke.object)) {
      this.actions.notify("Now draw a stroke on the object.");
      return;
    }
    this.running.set(session, run);
    this.actions.onBusy();
    try {
      const found = await this.request(hints);
      const map = await this.labels.get(hints.frame);
      if (this.running.get(session) === run) this.replace(run, map, found);
    } catch (error) {
      if (this.editor.hints === hints) this.editor.hints = run.before;
      this.actions.notify(error.message);
    } finally {
      if (this.running.get(session) === run) this.running.delete(session);
      this.actions.onBusy();
    }
  }

  request({ frame, box, ...hints }) {
    const query = box ? `?box=${box.x0},${box.y0},${box.x1},${box.y1}` : "";
    const body = hintMap(hints, this.clip.width, this.clip.height);
    return this.api.bytes(`grabcut/${frame}${query}`, { method: "POST", body });
  }

  replace({ hints, before }, map, found) {
    const edit = new Edit(hints.frame, map);
    let pixels = 0;
    for (let i = 0; i < map.length; i++) {
      if (map[i] !== 0 && map[i] !== hints.label) continue;
      map[i] = found[i] ? hints.label : 0;
      pixels += found[i];
    }
    const current = this.editor.hints;
    this.editor.hints = before;
    this.editor.commit(edit, hints);
    if (current !== hints) this.editor.hints = current;
    if (!pixels) this.actions.notify("No object was found. Draw a tighter box, or strokes on the object.");
  }
}

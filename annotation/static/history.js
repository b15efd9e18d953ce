/** Undo history: the label map of a frame before and after each edit, bounded in number and size. */
import { boundingBox, encode } from "./raster.js";

const MAX_ENTRIES = 100;
const MAX_BYTES = 100e6;

export class History {
  constructor(onChange) {
    Object.assign(this, { onChange, entries: [], position: 0 });
  }

  add(entry) {
    this.entries.splice(this.position, Infinity, entry);
    let bytes = this.entries.reduce((sum, { before, after }) => sum + before.byteLength + after.byteLength, 0);
    while (this.entries.length > MAX_ENTRIES || (bytes > MAX_BYTES && this.entries.length > 1)) {
      const { before, after } = this.entries.shift();
      bytes -= before.byteLength + after.byteLength;
    }
    this.position = this.entries.length;
    this.onChange();
  }

  /** The entry to undo, or to redo, which is no longer the next one; undefined if there is none. */
  take(redo) {
    const entry = this.entries[redo ? this.position : this.position - 1];
    if (entry) this.position += redo ? 1 : -1;
    this.onChange();
    return entry;
  }

  get canUndo() { return this.position > 0; }
  get canRedo() { return this.position < this.entries.length; }
}

/** An edit of a label map that has not ended. */
export class Edit {
  constructor(frame, map) {
    Object.assign(this, { frame, map, before: map.slice() });
  }

  revert() { this.map.set(this.before); }

  /** What changed: {rect, before, after}, encoded maps; null if nothing did. */
  change(width) {
    const everything = { x0: 0, y0: 0, x1: width, y1: this.map.length / width };
    const rect = boundingBox(everything, width, (index) => this.map[index] !== this.before[index]);
    return rect && { rect, before: encode(this.before), after: encode(this.map) };
  }
}

/** What the server knows of each frame, in arrays that are quick to draw, and the objects. */

export const NONE = 0, STALE = 1, CURRENT = 2;
const STATES = { none: NONE, stale: STALE, current: CURRENT };

export class ClipState {
  constructor() {
    Object.assign(this, { version: 0, frames: 0, indexed: 0, objects: [], job: null, figures: new Map() });
    this.resize(0);
  }

  /** Take over an answer of the server; returns the frames that changed. */
  apply(answer) {
    this.version = answer.version;
    this.indexed = answer.indexed;
    this.objects = answer.objects;
    this.job = answer.job;
    if (answer.frames !== this.frames) this.resize(answer.frames);
    answer.changed.filter((record) => record.frame < this.frames).forEach((record) => this.applyRecord(record));
    return answer.changed.map((record) => record.frame);
  }

  resize(frames) {
    this.frames = frames;
    this.annotated = resized(this.annotated, Uint8Array, frames);
    this.state = resized(this.state, Uint8Array, frames);
    this.doubtful = resized(this.doubtful, Uint8Array, frames);
    for (const figures of this.figures.values())
      for (const name in figures) figures[name] = resized(figures[name], Float32Array, frames);
  }

  applyRecord({ frame, annotated, state, doubtful, objects }) {
    this.annotated[frame] = annotated;
    this.state[frame] = STATES[state];
    this.doubtful[frame] = doubtful;
    for (const figures of this.figures.values()) for (const name in figures) figures[name][frame] = 0;
    for (const [label, area, confidence, boundary] of objects) {
      const figures = this.figuresOf(label);
      figures.area[frame] = area;
      figures.confidence[frame] = confidence;
      figures.boundary[frame] = boundary;
    }
  }

  figuresOf(label) {
    if (!this.figures.has(label)) {
      const empty = () => new Float32Array(this.frames);
      this.figures.set(label, { area: empty(), confidence: empty(), boundary: empty() });
    }
    return this.figures.get(label);
  }

  get isAnnotated() { return this.annotated.includes(1); }
  get isPropagated() { return this.state.some((state) => state !== NONE); }

  /** Whether the labels of a frame may not be all zero. */
  hasLabels(frame) { return this.annotated[frame] || this.state[frame] !== NONE; }

  /** The next frame that is marked in the array, from a frame on in steps of 1 or -1, around the end; else null. */
  find(marks, frame, step) {
    for (let count = 1; count <= this.frames; count++) {
      const other = (((frame + step * count) % this.frames) + this.frames) % this.frames;
      if (marks[other]) return other;
    }
    return null;
  }
}

function resized(array, Type, length) {
  const result = new Type(length);
  if (array) result.set(array.subarray(0, length));
  return result;
}

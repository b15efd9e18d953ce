/** Least recently used cache of values by frame, bounded in their number. */

export class Cache {
  constructor(limit, { keep = () => false, release = () => {} } = {}) {
    this.limit = limit;
    this.keep = keep;
    this.release = release;
    this.values = new Map();
  }

  get(frame) {
    const value = this.values.get(frame);
    if (value !== undefined) {
      this.values.delete(frame);
      this.values.set(frame, value);
    }
    return value;
  }

  set(frame, value) {
    this.delete(frame);
    this.values.set(frame, value);
    for (const other of this.values.keys()) {
      if (this.values.size <= this.limit) break;
      if (other !== frame && !this.keep(other)) this.delete(other);
    }
  }

  delete(frame) {
    const value = this.values.get(frame);
    if (value !== undefined) this.release(value);
    this.values.delete(frame);
  }
}

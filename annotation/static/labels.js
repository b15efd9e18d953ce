/** The label maps of the frames: (height * width) labels each, loaded when they are needed. */
import { Cache } from "./cache.js";

const CACHE_BYTES = 96e6;

export class LabelMaps {
  constructor(api, clip, state, saver) {
    Object.assign(this, { api, state, saver, wanted: null, loading: new Map() });
    this.pixels = clip.width * clip.height;
    const limit = Math.max(6, Math.min(200, Math.floor(CACHE_BYTES / this.pixels)));
    this.cache = new Cache(limit, { keep: (frame) => frame === this.wanted || this.isUnsaved(frame) });
  }

  isUnsaved(frame) { return this.saver.has(`labels/${frame}`); }

  /** The labels of a frame if no request is needed for them. */
  peek(frame) {
    if (!this.state.hasLabels(frame) && !this.cache.get(frame)) this.cache.set(frame, new Uint8Array(this.pixels));
    return this.cache.get(frame);
  }

  async get(frame) {
    const known = this.peek(frame);
    if (known) return known;
    if (!this.loading.has(frame)) this.loading.set(frame, this.load(frame));
    const request = this.loading.get(frame);
    try {
      const map = await request;
      if (this.loading.get(frame) !== request) return this.get(frame);
      if (!this.cache.get(frame)) this.cache.set(frame, map);
      return this.cache.get(frame);
    } finally {
      if (this.loading.get(frame) === request) queueMicrotask(() => this.loading.delete(frame));
    }
  }

  load(frame) { return this.api.bytes(`labels/${frame}`); }

  /** Forget the labels of a frame that changed on the server. */
  drop(frame) {
    this.loading.delete(frame);
    this.cache.delete(frame);
  }
}

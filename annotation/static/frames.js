/** Frames for the stage: a preview at once, the exact frame when the user rests, then its neighbours. */
import { Cache } from "./cache.js";
import { ServerGone, SessionTaken } from "./api.js";

const CACHE_BYTES = 160e6;
const REST_MS = 150;
const MAX_REQUESTS = 2;

export class FrameLoader {
  /**
   * @param onImage called with a frame whose {bitmap, exact} came into the cache: the wanted one or, while the user
   *   scrubs, one that was wanted lately.
   */
  constructor(api, clip, state, onImage, onError) {
    Object.assign(this, { api, clip, state, onImage, onError });
    const limit = Math.max(6, Math.min(100, Math.floor(CACHE_BYTES / (4 * clip.width * clip.height))));
    this.cache = new Cache(limit, { keep: (frame) => frame === this.wanted, release: (image) => image.bitmap.close() });
    this.requests = new Map();
    this.failed = new Set();
    this.wanted = null;
    this.order = 0;
    this.latest = -1;
  }

  want(frame) {
    if (frame === this.wanted) return;
    this.wanted = frame;
    this.rested = false;
    this.failed.clear();
    this.order++;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.rested = true;
      this.pump();
    }, REST_MS);
    for (const [key, request] of this.requests) if (key !== `exact ${frame}` && request.exact) request.abort.abort();
    if (this.cache.get(frame)) this.draw(frame, this.order);
    this.pump();
  }

  retry() {
    this.failed.clear();
    this.pump();
  }

  pump() {
    while (this.requests.size < MAX_REQUESTS) {
      const next = this.next();
      if (!next) return;
      this.request(...next);
    }
  }

  next() {
    const wanted = this.wanted;
    if (this.isMissing(wanted, false)) return [wanted, false];
    if (!this.rested) return null;
    if (this.isMissing(wanted, true)) return [wanted, true];
    if (!this.cache.get(wanted)?.exact) return null;
    const neighbour = [wanted + 1, wanted - 1, wanted + 2].find((frame) => this.isMissing(frame, true));
    return neighbour === undefined ? null : [neighbour, true];
  }

  isMissing(frame, exact) {
    if (frame < 0 || frame >= this.state.frames || this.failed.has(frame)) return false;
    const image = this.cache.values.get(frame);
    const known = exact ? image?.exact : image || this.requests.has(`exact ${frame}`);
    return !known && !this.requests.has(key(frame, exact));
  }

  async request(frame, exact) {
    const request = { exact, abort: new AbortController() };
    const order = this.order;
    this.requests.set(key(frame, exact), request);
    try {
      const file = await this.api.blob(`frames/${frame}${exact ? "" : "?preview=1"}`, request.abort.signal);
      const bitmap = await createImageBitmap(file);
      this.receive(frame, bitmap, exact || (bitmap.width === this.clip.width && this.state.indexed === 1), order);
    } catch (error) {
      if (error.name !== "AbortError") this.fail(frame, error);
    } finally {
      this.requests.delete(key(frame, exact));
      this.pump();
    }
  }

  receive(frame, bitmap, exact, order) {
    if (this.cache.values.get(frame)?.exact) {
      bitmap.close();
      return;
    }
    this.cache.set(frame, { bitmap, exact });
    if (frame === this.wanted) this.draw(frame, this.order);
    else if (!this.rested && order > this.latest) this.draw(frame, order);
  }

  draw(frame, order) {
    this.latest = order;
    this.onImage(frame);
  }

  fail(frame, error) {
    this.failed.add(frame);
    if (error instanceof ServerGone || error instanceof SessionTaken) return;
    this.onError(`Frame ${frame}: ${error.message}`);
  }
}

function key(frame, exact) { return `${exact ? "exact" : "preview"} ${frame}`; }

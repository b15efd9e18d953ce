/**
 * Frames for the stage: a preview at once, the exact frame when the user rests, then its neighbours. While a video is
 * being scanned, the preview may be of the keyframe before, and is followed by one of the frame itself, which is sought.
 */
import { Cache } from "./cache.js";
import { ServerGone, SessionTaken } from "./api.js";

const CACHE_BYTES = 160e6;
const REST_MS = 150;
const MAX_REQUESTS = 2;
const KINDS = ["preview", "sought", "exact"];       // from the worst to the best

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
    for (const [key, request] of this.requests) if (request.frame !== frame && request.kind !== "preview") request.abort.abort();
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
    const kinds = this.state.indexed < 1 ? KINDS : ["preview", "exact"];
    const kind = kinds.find((kind) => (kind === "preview" || this.rested) && this.isMissing(wanted, kind));
    if (kind) return [wanted, kind];
    if (!this.rested || !this.cache.get(wanted)?.exact) return null;
    const neighbour = [wanted + 1, wanted - 1, wanted + 2].find((frame) => this.isMissing(frame, "exact"));
    return neighbour === undefined ? null : [neighbour, "exact"];
  }

  /** Whether a kind of the frame, or a better one, is neither known nor requested. */
  isMissing(frame, kind) {
    if (frame < 0 || frame >= this.state.frames || this.failed.has(frame)) return false;
    return rank(this.cache.values.get(frame)?.kind) < rank(kind) && !this.requests.has(key(frame, kind))
      && !(kind === "preview" && this.requests.has(key(frame, "exact")));
  }

  async request(frame, kind) {
    const request = { frame, kind, abort: new AbortController() };
    const order = this.order;
    this.requests.set(key(frame, kind), request);
    try {
      const scanned = this.state.indexed === 1;
      const bitmap = await createImageBitmap(await this.api.blob(`frames/${frame}?kind=${kind}`, request.abort.signal));
      this.receive(frame, bitmap, scanned && bitmap.width === this.clip.width ? "exact" : kind, order);
    } catch (error) {
      if (error.name !== "AbortError") this.fail(frame, error);
    } finally {
      this.requests.delete(key(frame, kind));
      this.pump();
    }
  }

  receive(frame, bitmap, kind, order) {
    if (rank(this.cache.values.get(frame)?.kind) >= rank(kind)) {
      bitmap.close();
      return;
    }
    this.cache.set(frame, { bitmap, kind, exact: kind === "exact" });
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

function key(frame, kind) { return `${kind} ${frame}`; }

function rank(kind) { return KINDS.indexOf(kind); }

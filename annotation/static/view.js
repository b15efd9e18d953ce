/** Zoom and pan of the stage, and the gestures on it: one pointer draws, two fingers pan and zoom. */

const MAX_SCALE = 40;

export class View {
  /** @param onChange called when the part of the frame that is shown changed. */
  constructor(stage, content, clip, onChange) {
    Object.assign(this, { stage, content, clip, onChange, fitted: true, scale: 1, x: 0, y: 0 });
    new ResizeObserver(() => (this.fitted ? this.fit() : this.apply())).observe(stage);
    this.fit();
  }

  get fitScale() {
    const { clientWidth, clientHeight } = this.stage, { width, height } = this.clip, margin = 8;
    return Math.max(0.01, Math.min((clientWidth - margin) / width, (clientHeight - margin) / height));
  }

  fit() {
    this.scale = this.fitScale;
    this.x = (this.stage.clientWidth - this.clip.width * this.scale) / 2;
    this.y = (this.stage.clientHeight - this.clip.height * this.scale) / 2;
    this.fitted = true;
    this.apply();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.fitted = false;
    this.apply();
  }

  /** Zoom around a point of the stage, the centre by default. */
  zoom(factor, point = { x: this.stage.clientWidth / 2, y: this.stage.clientHeight / 2 }) {
    const scale = Math.max(this.fitScale / 2, Math.min(MAX_SCALE, this.scale * factor));
    this.x = point.x - ((point.x - this.x) * scale) / this.scale;
    this.y = point.y - ((point.y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.apply();
  }

  apply() {
    const keep = 40, { clientWidth, clientHeight } = this.stage;
    this.x = Math.max(keep - this.clip.width * this.scale, Math.min(clientWidth - keep, this.x));
    this.y = Math.max(keep - this.clip.height * this.scale, Math.min(clientHeight - keep, this.y));
    this.content.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    this.content.classList.toggle("pixels", this.scale >= 3);
    this.onChange();
  }

  /** The position of a pointer event on the stage. */
  position(event) {
    const { left, top } = this.stage.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }

  toImage({ x, y }) { return { x: (x - this.x) / this.scale, y: (y - this.y) / this.scale }; }
  toStage({ x, y }) { return { x: x * this.scale + this.x, y: y * this.scale + this.y }; }
}

/** Calls `tool` with {down, move, up, cancel, hover}; points are in pixels of the frame. */
export class Gestures {
  constructor(view, tool) {
    Object.assign(this, { view, tool, pointers: new Map(), mode: null, spaceHeld: false });
    const { stage } = view;
    stage.addEventListener("pointerdown", (event) => this.down(event));
    stage.addEventListener("pointermove", (event) => this.move(event));
    stage.addEventListener("pointerup", (event) => this.up(event));
    stage.addEventListener("pointercancel", (event) => this.up(event, true));
    stage.addEventListener("pointerleave", () => this.tool.hover(null));
    stage.addEventListener("contextmenu", (event) => event.preventDefault());
    stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  down(event) {
    if (event.target.closest("button, a")) return;
    event.preventDefault();
    document.activeElement?.blur();
    if (this.pointers.size === 2 || (this.mode === "draw" && event.pointerType !== "touch")) return;
    this.view.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.view.position(event));
    if (this.pointers.size === 2) {
      if (this.mode === "draw") this.tool.cancel();
      this.mode = "pinch";
    } else if (event.button === 1 || this.spaceHeld) {
      this.mode = "pan";
    } else {
      this.mode = "draw";
      this.tool.down(this.point(event), event);
    }
  }

  move(event) {
    if (event.pointerType !== "touch") this.tool.hover(this.view.position(event));
    if (!this.pointers.has(event.pointerId)) return;
    const before = this.pinch();
    const last = this.pointers.get(event.pointerId), now = this.view.position(event);
    this.pointers.set(event.pointerId, now);
    if (this.mode === "pan") this.view.pan(now.x - last.x, now.y - last.y);
    if (this.mode === "pinch" && this.pointers.size === 2) {
      const after = this.pinch();
      this.view.pan(after.x - before.x, after.y - before.y);
      this.view.zoom(after.distance / before.distance, after);
    }
    if (this.mode === "draw") {
      const events = event.getCoalescedEvents?.() ?? [];
      this.tool.move((events.length ? events : [event]).map((part) => this.point(part)));
    }
  }

  up(event, cancelled = false) {
    if (!this.pointers.delete(event.pointerId)) return;
    const drawn = this.mode === "draw";
    if (this.pointers.size === 0) this.mode = null;
    if (drawn && cancelled) this.tool.cancel();
    else if (drawn) this.tool.up(this.point(event), event);
  }

  wheel(event) {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === 1 ? 30 : 1);
    this.view.zoom(Math.exp(-pixels * (event.ctrlKey ? 0.01 : 0.0015)), this.view.position(event));
  }

  point(event) { return this.view.toImage(this.view.position(event)); }

  /** The middle of two fingers and their distance. */
  pinch() {
    const [a, b] = this.pointers.values();
    return b && { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, distance: Math.max(1, Math.hypot(a.x - b.x, a.y - b.y)) };
  }
}

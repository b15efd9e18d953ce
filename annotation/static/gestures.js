/** Pointer gestures on the stage: one pointer draws, two fingers pan and zoom. */

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

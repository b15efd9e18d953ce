/** Zoom and pan of the stage. */

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

/** The labels of a frame, drawn as half transparent areas with solid outlines. */
import { clipped, union } from "./raster.js";

export class Overlay {
  constructor(canvas, { width, height, palette }) {
    canvas.width = width;
    canvas.height = height;
    this.context = canvas.getContext("2d");
    this.size = { width, height };
    this.everything = { x0: 0, y0: 0, x1: width, y1: height };
    this.outline = Math.max(1, Math.round(Math.min(width, height) / 480));
    this.palette = palette;
    this.map = null;
    this.dirty = null;
    this.setOpacity(0.5);
  }

  setOpacity(opacity) {
    this.fill = this.palette.map((colour) => packed(colour, Math.round(opacity * 255)));
    this.line = this.palette.map((colour) => packed(colour.map((part) => Math.min(255, part * 1.6)), 255));
    this.update();
  }

  show(map) {
    this.map = map;
    this.update();
  }

  /** Draw a rectangle of the map again, before the next repaint of the page. */
  update(rect = this.everything) {
    if (!this.dirty) requestAnimationFrame(() => this.render());
    this.dirty = union(this.dirty, rect);
  }

  render() {
    const { width, height } = this.size, r = this.outline, map = this.map;
    const { x0, y0, x1, y1 } = clipped({ x0: this.dirty.x0 - r, y0: this.dirty.y0 - r,
      x1: this.dirty.x1 + r, y1: this.dirty.y1 + r }, width, height);
    this.dirty = null;
    if (!map) {
      this.context.clearRect(0, 0, width, height);
      return;
    }
    if (x0 >= x1 || y0 >= y1) return;
    const image = new ImageData(x1 - x0, y1 - y0), pixels = new Uint32Array(image.data.buffer);
    for (let y = y0, out = 0; y < y1; y++) {
      const up = y >= r ? -r * width : 0, down = y + r < height ? r * width : 0;
      for (let x = x0, i = y * width + x0; x < x1; x++, i++, out++) {
        const label = map[i];
        if (label === 0) continue;
        const inside = map[i + up] === label && map[i + down] === label &&
          (x < r || map[i - r] === label) && (x + r >= width || map[i + r] === label);
        pixels[out] = inside ? this.fill[label] : this.line[label];
      }
    }
    this.context.putImageData(image, x0, y0);
  }
}

/** A colour as ImageData stores it on a little-endian machine. */
function packed([red, green, blue], alpha) { return (red | (green << 8) | (blue << 16) | (alpha << 24)) >>> 0; }

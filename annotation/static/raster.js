/** Drawing into label maps (Uint8Array, row by row). A rectangle is {x0, y0, x1, y1}, exclusive at the end. */

/** Draw a thick line from a to b, on the pixels of value `only` if it is given; returns the rectangle it lies in. */
export function drawLine(map, width, height, a, b, radius, value, only = null) {
  const rect = clipped({ x0: Math.floor(Math.min(a.x, b.x) - radius), y0: Math.floor(Math.min(a.y, b.y) - radius),
    x1: Math.ceil(Math.max(a.x, b.x) + radius) + 1, y1: Math.ceil(Math.max(a.y, b.y) + radius) + 1 }, width, height);
  const dx = b.x - a.x, dy = b.y - a.y, length = dx * dx + dy * dy || 1, limit = Math.max(radius, 0.71) ** 2;
  for (let y = rect.y0; y < rect.y1; y++) {
    for (let x = rect.x0; x < rect.x1; x++) {
      const px = x + 0.5 - a.x, py = y + 0.5 - a.y;
      const along = Math.max(0, Math.min(1, (px * dx + py * dy) / length));
      const distance = (px - along * dx) ** 2 + (py - along * dy) ** 2;
      if (distance <= limit && (only === null || map[y * width + x] === only)) map[y * width + x] = value;
    }
  }
  return rect;
}

/** Fill a polygon by the even-odd rule; returns the rectangle it lies in. */
export function fillPolygon(map, width, height, points, value) {
  const rect = clipped(bounds(points), width, height);
  for (let y = rect.y0; y < rect.y1; y++) {
    const crossings = [];
    points.forEach((a, index) => {
      const b = points[(index + 1) % points.length], middle = y + 0.5;
      if (a.y <= middle !== b.y <= middle) crossings.push(a.x + ((middle - a.y) * (b.x - a.x)) / (b.y - a.y));
    });
    crossings.sort((a, b) => a - b);
    for (let index = 0; index + 1 < crossings.length; index += 2) {
      const start = Math.max(rect.x0, Math.ceil(crossings[index] - 0.5));
      const end = Math.min(rect.x1, Math.ceil(crossings[index + 1] - 0.5));
      if (start < end) map.fill(value, y * width + start, y * width + end);
    }
  }
  return rect;
}

export function bounds(points) {
  const xs = points.map((point) => point.x), ys = points.map((point) => point.y);
  return { x0: Math.floor(Math.min(...xs)), y0: Math.floor(Math.min(...ys)),
    x1: Math.ceil(Math.max(...xs)), y1: Math.ceil(Math.max(...ys)) };
}

export function clipped(rect, width, height) {
  return { x0: Math.max(0, rect.x0), y0: Math.max(0, rect.y0),
    x1: Math.min(width, rect.x1), y1: Math.min(height, rect.y1) };
}

export function union(a, b) {
  if (!a) return b;
  return { x0: Math.min(a.x0, b.x0), y0: Math.min(a.y0, b.y0), x1: Math.max(a.x1, b.x1), y1: Math.max(a.y1, b.y1) };
}

/** The smallest rectangle of the pixels for which `test` of their index is true; null if there are none. */
export function boundingBox(rect, width, test) {
  let box = null;
  for (let y = rect.y0; y < rect.y1; y++) {
    let first = rect.x0, last = rect.x1 - 1;
    while (first < rect.x1 && !test(y * width + first)) first++;
    if (first === rect.x1) continue;
    while (!test(y * width + last)) last--;
    box = union(box, { x0: first, y0: y, x1: last + 1, y1: y + 1 });
  }
  return box;
}

/** A map as run lengths: value and length in one number each. */
export function encode(map) {
  const runs = [];
  for (let start = 0, end = 1; end <= map.length; end++) {
    if (map[end] === map[start] && end - start < 0xffffff) continue;        // beyond the end, map[end] is undefined
    runs.push(map[start] + (end - start) * 256);
    start = end;
  }
  return Uint32Array.from(runs);
}

export function decode(runs, map) {
  let start = 0;
  for (const run of runs) {
    const end = start + (run >>> 8);
    map.fill(run & 255, start, end);
    start = end;
  }
}

/* Rings and polygons: pure functions. A ring is a list of [x, y] or [x, y, spread]; a polygon is
   {outer, holes}; pixels of the upright picture, edges. */

export const clamp = (value, high) => Math.min(Math.max(value, 0), high);
export const rounded = (value) => Math.round(value * 100) / 100;

/** All rings of polygons, an outer ring before its holes. */
export const ringsOf = (polygons) => polygons.flatMap(({outer, holes}) => [outer, ...holes]);
export const countVertices = (rings) => rings.reduce((sum, ring) => sum + ring.length, 0);

/** Twice the signed area: positive where the ring runs clockwise on the screen. */
export function turning(ring) {
  let sum = 0;
  const [x, y] = ring[0] || [0, 0];  // from here: numbers stay small
  for (let k = 0, last = ring.length - 1; k < ring.length; last = k, k += 1) {
    sum += (ring[last][0] - x) * (ring[k][1] - y) - (ring[k][0] - x) * (ring[last][1] - y);
  }
  return sum;
}

// Coordinates have two decimals, so that twice an area is 0 or at least 1e-4. A ring of area 0
// (it crosses itself) stays as it is, here and in the exports (serving/outlines.py, `directed`).
const FLAT = 5e-5;
const directed = (ring, sign) => (turning(ring) * sign < -FLAT ? [...ring].reverse() : ring);

/** An SVG path. Filled by `nonzero` it covers what the exports fill: outer rings run one way,
    holes the other, whichever way they were written or drawn. */
export const pathOf = (polygons) => polygons.map(({outer, holes}) => ringPath(
  [directed(outer, -1), ...holes.map((hole) => directed(hole, 1))], true)).join('');

export const ringPath = (rings, close) => rings.filter((ring) => ring.length)
  .map((ring) => 'M' + ring.map(([x, y]) => `${x} ${y}`).join('L') + (close ? 'Z' : ''))
  .join('');

/** x1, y1, x2, y2 around polygons; null where they have no vertex. */
export function boundsOf(polygons) {
  const bounds = [Infinity, Infinity, -Infinity, -Infinity];
  for (const ring of ringsOf(polygons)) {
    for (const [x, y] of ring) {
      bounds[0] = Math.min(bounds[0], x);
      bounds[1] = Math.min(bounds[1], y);
      bounds[2] = Math.max(bounds[2], x);
      bounds[3] = Math.max(bounds[3], y);
    }
  }
  return bounds[0] <= bounds[2] ? bounds : null;
}

/** Polygons with one ring replaced by `edit(ring)`; where null comes of it, without that ring, and
    without the polygon where it was the outer one. `number` counts as ringsOf does. */
export function withRing(polygons, number, edit) {
  let count = 0;
  return polygons.flatMap(({outer, holes, ...more}) => {
    const rings = [outer, ...holes].map((ring) => (count++ === number ? edit(ring) : ring));
    return rings[0] === null ? []
      : [{...more, outer: rings[0], holes: rings.slice(1).filter((ring) => ring !== null)}];
  });
}

/** Polygons moved by (dx, dy), less where they would leave the picture. What the model said of
    their vertices is said no more. */
export function movedBy(polygons, [dx, dy], width, height) {
  const [x1, y1, x2, y2] = boundsOf(polygons);
  const right = Math.max(Math.min(dx, Math.max(width - x2, 0)), Math.min(-x1, 0));
  const down = Math.max(Math.min(dy, Math.max(height - y2, 0)), Math.min(-y1, 0));
  const shift = (ring) => ring.map(([x, y]) => [rounded(x + right), rounded(y + down)]);
  return polygons.map(({outer, holes, ...more}) => ({...more, outer: shift(outer),
    holes: holes.map(shift)}));
}

/** Whether a ring winds around a point. */
export function windsAround(ring, [x, y]) {
  let winding = 0;
  for (let k = 0, last = ring.length - 1; k < ring.length; last = k, k += 1) {
    const [ax, ay] = ring[last], [bx, by] = ring[k];
    if ((ay <= y) === (by <= y)) continue;
    const side = (bx - ax) * (y - ay) - (x - ax) * (by - ay);
    if (by > y ? side > 0 : side < 0) winding += by > y ? 1 : -1;
  }
  return winding !== 0;
}

const turn = ([ax, ay], [bx, by], [cx, cy]) => (bx - ax) * (cy - ay) - (cx - ax) * (by - ay);

/** Whether two rings have a point of their borders in common. */
export function bordersMeet(one, other) {
  const edges = (ring) => ring.map((point, k) => [point, ring[(k + 1) % ring.length]]);
  const others = edges(other);
  return edges(one).some(([a, b]) => others.some(([c, d]) => {
    if (Math.max(a[0], b[0]) < Math.min(c[0], d[0]) || Math.max(c[0], d[0]) < Math.min(a[0], b[0])
      || Math.max(a[1], b[1]) < Math.min(c[1], d[1])
      || Math.max(c[1], d[1]) < Math.min(a[1], b[1])) return false;
    return turn(a, b, c) * turn(a, b, d) <= 0 && turn(c, d, a) * turn(c, d, b) <= 0;
  }));
}

/** A line with the points that it needs to stay within `tolerance` of all (Douglas and Peucker). */
export function simplified(points, tolerance) {
  const kept = new Set([0, points.length - 1]), todo = [[0, points.length - 1]];
  while (todo.length) {
    const [first, last] = todo.pop(), [ax, ay] = points[first], [bx, by] = points[last];
    const length = Math.hypot(bx - ax, by - ay);
    let far = tolerance, at = null;
    for (let k = first + 1; k < last; k += 1) {
      const [x, y] = points[k];
      const away = length ? Math.abs((bx - ax) * (y - ay) - (x - ax) * (by - ay)) / length
        : Math.hypot(x - ax, y - ay);
      if (away > far) [far, at] = [away, k];
    }
    if (at === null) continue;
    kept.add(at);
    todo.push([first, at], [at, last]);
  }
  return points.filter((_, k) => kept.has(k));
}

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
  for (let k = 0, last = ring.length - 1; k < ring.length; last = k, k += 1) {
    sum += ring[last][0] * ring[k][1] - ring[k][0] * ring[last][1];
  }
  return sum;
}

const directed = (ring, sign) => (turning(ring) * sign < 0 ? [...ring].reverse() : ring);

/** An SVG path. Filled by `nonzero` it covers what the exports fill: outer rings run one way,
    holes the other, whichever way they were written or drawn. */
export const pathOf = (polygons) => polygons.map(({outer, holes}) => ringPath(
  [directed(outer, 1), ...holes.map((hole) => directed(hole, -1))], true)).join('');

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

/* Objects as the server takes and gives them: how sure vertices are is said of the polygon, and not
   as a third number of the vertex. */
import {freshColor} from './asking.js';
import {makeObject} from './store.js';

export function onWire({polygons, ...object}) {
  const places = (ring) => ring.map(([x, y]) => [x, y]);
  return {...object, polygons: polygons.map(({outer, holes, ...more}) => {
    const spread = [outer, ...holes].map((ring) => ring.map((point) => point[2] || null));
    return {...more, outer: places(outer), holes: holes.map(places),
      spread: spread.flat().some(Boolean) ? spread : null};
  })};
}

/** Objects of the server's in the page's memory, with all that one has, in colours that `others`
    have not. */
export function taken(objects, others = []) {
  const colors = new Set([...objects, ...others].map(({color}) => color));
  return objects.map(({polygons, ...object}) => {
    const fields = Object.entries(object).filter(([, value]) => value !== undefined);
    const color = object.color || freshColor(colors);
    colors.add(color);
    return makeObject({...Object.fromEntries(fields), color, polygons: polygons.map(unpacked)});
  });
}

/** A polygon whose vertices carry how sure they are. */
export function unpacked({outer, holes = [], spread, ...more}) {
  const [first, ...rest] = [outer, ...holes].map((ring, k) => ring.map(
    ([x, y], i) => (spread?.[k]?.[i] ? [x, y, spread[k][i]] : [x, y])));
  return {...more, outer: first, holes: rest};
}

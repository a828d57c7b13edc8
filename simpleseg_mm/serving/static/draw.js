/* Drawing by hand: an outline click by click or in strokes, which becomes an object, a part or a
   hole of the selected one. */
import {freshColor} from './asking.js';
import {$, say, svg} from './dom.js';
import {bordersMeet, pathOf, ringPath, ringsOf, simplified, turning, windsAround
} from './geometry.js';
import {bind} from './keys.js';
import {addLayer, renderSoon} from './overlay.js';
import {combine} from './refine.js';
import {changed, commit, commitObject, makeObject, on, selectedObject, shown, state
} from './store.js';
import {position, unit, view} from './view.js';

export const TOOLS = ['draw', 'part', 'hole'];
const CLOSE = 10, STEP = 3, SMOOTH = 0.8;  // screen pixels
let points = [], hover = null;

export const isDrawing = () => points.length > 0;
const distance = ([ax, ay], [bx, by]) => Math.hypot(ax - bx, ay - by) * view.scale;

function set(next) {
  points = next;
  hover = null;
  $('drawing').hidden = !points.length;
  renderSoon();
}

/** The selected object, where it may be changed by a drawing; else null, and it is said why. */
function target() {
  const object = selectedObject();
  if (object && !object.locked && !object.hidden) return object;
  say(object ? 'The selected object is locked or hidden.'
    : `Select the object that gets the ${state.tool} first (Edit, then click it).`, 'bad');
  return null;
}

/** What a pointer that goes down does; null: nothing. */
export function gesture(event, isSecond) {
  if (state.tool !== 'draw' && !points.length && !target()) return null;
  const before = points, point = position(event);
  if (before.length >= 3 && (isSecond || distance(point, before[0]) < (
    event.pointerType === 'touch' ? 2 * CLOSE : CLOSE))) return {end: finish};
  if (isSecond) return null;
  const stroke = [point];
  set([...before, point]);
  return {
    move(next, moved) {
      const at = position(next);
      if (!moved || distance(at, stroke.at(-1)) < STEP) return;
      stroke.push(at);
      set([...before, ...stroke]);
    },
    end(_, moved) {
      if (!moved) return;
      set([...before, ...simplified(stroke, SMOOTH * unit())]);
      if (!before.length) finish();
    },
    cancel: () => set(before)};
}

/** Where the next point would be. */
export function follow(event) {
  if (!points.length) return;
  hover = position(event);
  renderSoon();
}

/** Close the outline; false where none is being drawn. */
export function finish() {
  if (!points.length) return false;
  if (put(points)) set([]);
  return true;
}

/** Whether a ring without area still encloses some, as an 8 does. */
const crosses = (ring) => ring.length > 3 && [0, 1].every(
  (axis) => new Set(ring.map((point) => point[axis])).size > 1);

/** Put an outline where the tool says; whether that could be done. */
export function put(line) {
  const ring = line.filter(([x, y], k) => k === 0 || x !== line[k - 1][0]
    || y !== line[k - 1][1]);
  if (ring.length < 3 || (!turning(ring) && !crosses(ring))) {
    say('An outline has at least three points that are not in a line.', 'bad');
    return false;
  }
  const drawn = ring.length, {objects} = shown();
  if (state.tool === 'draw') {
    const object = makeObject({label: state.settings.next || 'object', edited: true,
      polygons: [{outer: ring, holes: []}], color: freshColor(new Set(objects.map(
        ({color}) => color)))});
    commit(state.current, {objects: [...objects, {...object, actions: {...object.actions, drawn}}],
      selected: object.id});
    say(`Drawn: ${object.label}, ${drawn} vertices.`);
    return true;
  }
  const object = target();
  if (!object) return false;
  if (state.tool === 'part') {
    commitObject(object.id, () => changed(object, [...object.polygons, {outer: ring, holes: []}],
      {drawn}));
    say(`${object.label}: another part, ${drawn} vertices.`);
    return true;
  }
  const home = homeOf(object.polygons, ring);
  if (home === null) {
    const key = state.current;
    combine(key, object.id, 'cut', [{outer: ring, holes: []}], {drawn}).then(
      (text) => say(text), (error) => say(error.message, 'bad'));
  } else {
    commitObject(object.id, () => changed(object, object.polygons.map((polygon, k) => (
      k === home ? {...polygon, holes: [...polygon.holes, ring]} : polygon)), {drawn}));
    say(`${object.label}: a hole of ${drawn} vertices.`);
  }
  return true;
}

/** The polygon that a hole lies in and that nothing else lies on there; null where there is none:
    it is then cut out. */
function homeOf(polygons, hole) {
  const around = [];
  for (const [k, {outer, holes}] of polygons.entries()) {
    if ([outer, ...holes].some((ring) => bordersMeet(ring, hole)
      || windsAround(hole, ring[0]))) return null;
    if (holes.some((ring) => windsAround(ring, hole[0]))) return null;
    if (windsAround(outer, hole[0])) around.push(k);
  }
  return around.length === 1 ? around[0] : null;
}

/** Take the last point back; false where none is being drawn. */
export function back() {
  if (!points.length) return false;
  set(points.slice(0, -1));
  return true;
}

export function cancel() {
  if (!points.length) return false;
  set([]);
  return true;
}

function render() {
  const layer = $('pen');
  if (!points.length && !layer.firstChild) return;
  layer.replaceChildren();
  if (!points.length) return;
  svg('path', {class: 'pen', d: points.length > 2 ? pathOf([{outer: points, holes: []}])
    : ringPath([points], false)}, layer);
  svg('path', {class: 'draft', d: ringPath([hover ? [...points, hover] : points], false)}, layer);
  const dots = points.length > 200 ? [points[0], points.at(-1)] : points;
  for (const [x, y] of dots) {
    svg('circle', {class: 'draft-dot', cx: x, cy: y, r: (x === points[0][0] && y === points[0][1]
      ? 6 : 4) * unit()}, layer);
  }
}

export function connect() {
  addLayer(render);
  $('draw-close').onclick = finish;
  $('draw-back').onclick = back;
  $('draw-cancel').onclick = cancel;
  on('current', cancel);
  on('tool', () => { if (![...TOOLS, 'pan'].includes(state.tool)) cancel(); });
  bind('Enter', 'close the outline that is being drawn', finish);
  bind('Backspace', 'take its last point back', back);
  bind('Ctrl+z', '', back);
  bind('Escape', 'give it up; else stop the model; else select nothing', cancel);
}

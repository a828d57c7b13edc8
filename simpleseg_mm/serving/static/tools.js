/* What the pointer and the keys do on the picture. */
import {ASKED, ask, taught} from './asking.js';
import {$, say} from './dom.js';
import * as draw from './draw.js';
import {clamp, movedBy, ringsOf, rounded, withRing} from './geometry.js';
import {bind} from './keys.js';
import {focusVertex, handleNear, preview, renderAsking} from './overlay.js';
import {refineAt} from './refine.js';
import {changed, commit, commitObject, on, redo, select, selectedObject, setTool, shown, state,
  undo} from './store.js';
import {beyond, onStage, pan, position, reveal, zoom} from './view.js';

const placeOf = (text) => text.split(',').map(Number);

// --- vertices -----------------------------------------------------------------------------------
const withVertex = (polygons, [ring, index], point) => withRing(polygons, ring,
  (points) => points.map((old, k) => (k === index ? point : old)));
const withNewVertex = (polygons, [ring, index], point) => withRing(polygons, ring,
  (points) => points.toSpliced(index + 1, 0, point));
const withoutVertex = (polygons, [ring, index]) => withRing(polygons, ring,
  (points) => (points.length > 3 ? points.toSpliced(index, 1) : null));  // two are no ring

function removeVertex([ring, index]) {
  const object = selectedObject(), count = ringsOf(object.polygons)[ring].length;
  const polygons = withoutVertex(object.polygons, [ring, index]);
  if (polygons.length) {
    commitObject(object.id, () => changed(object, polygons, {removed: 1}));
    if (count > 3) focusVertex([ring, Math.min(index, count - 2)]);
  } else {
    removeObject(object.id);
  }
}

// --- objects ------------------------------------------------------------------------------------
/** Delete an object. What the model wrote and nobody wanted is kept apart, for training. */
export function removeObject(id) {
  const {objects, rejected} = shown();
  const gone = objects.find((object) => object.id === id);
  if (gone.locked) {
    say('The object is locked: unlock it to delete it.', 'bad');
    return;
  }
  commit(state.current, {objects: objects.filter((object) => object !== gone),
    rejected: gone.origin ? [...rejected, {...gone.origin, label: gone.label}] : rejected,
    selected: state.selected === id ? null : state.selected});
}

/** The selected object where it may be moved or deleted; else null, and it is said why. */
function free() {
  const object = selectedObject();
  if (object?.locked) say('The object is locked.', 'bad');
  return object && !object.locked && !object.hidden ? object : null;
}

function shiftSelected(by) {
  const object = selectedObject() && free();
  if (!object) return Boolean(selectedObject());
  const {width, height} = shown();
  commitObject(object.id, () => changed(object, movedBy(object.polygons, by, width, height),
    {moved: 1}));
  return true;
}

/** Hide all objects but the selected one; all are shown where that is so already. */
export function hideOthers() {
  const {objects} = shown() || {objects: []}, id = state.selected;
  const others = objects.filter((object) => object.id !== id);
  const hide = id !== null && others.some(({hidden}) => !hidden);
  if (!objects.length) return;
  commit(state.current, {objects: objects.map((object) => {
    const hidden = object.id !== id && hide;
    return object.hidden === hidden ? object : {...object, hidden};
  })});
}

export function toggle(id, field) {
  commitObject(id, (object) => ({[field]: !object[field]}));
}

// --- what a pointer does ------------------------------------------------------------------------
/* A gesture is {move(event, moved), end(event, moved), cancel()}, each may be missing; `moved`:
   the pointer has left the place where it went down. */
function panning(event) {
  let last = onStage(event);
  return {move(next) {
    const at = onStage(next);
    pan(at[0] - last[0], at[1] - last[1]);
    last = at;
  }};
}

/** Pan by dragging; else `tap(point)`. */
function tapping(event, tap) {
  const view = panning(event), point = position(event);
  return {move: (next, moved) => { if (moved) view.move(next); },
    end: (_, moved) => { if (!moved) tap(point); }};
}

function dragVertex(event, place, isNew) {
  const object = selectedObject(), start = beyond(event);
  let [ring, index] = place, {polygons} = object;
  if (isNew) {
    polygons = withNewVertex(polygons, place, position(event));
    index += 1;
  }
  const old = ringsOf(polygons)[ring][index];
  const at = (next) => {  // as far as the pointer went: it need not have met the middle
    const [x, y] = beyond(next), {width, height} = shown();
    return [rounded(clamp(old[0] + x - start[0], width)),
      rounded(clamp(old[1] + y - start[1], height))];
  };
  return {
    move: (next, moved) => {
      if (moved) preview(withVertex(polygons, [ring, index], at(next)));
    },
    end(next, moved) {
      preview(null);
      if (moved || isNew) {
        commitObject(object.id, () => changed(object, moved
          ? withVertex(polygons, [ring, index], at(next)) : polygons,
        isNew ? {added: 1} : {moved: 1}));
      }
      focusVertex([ring, index]);
    },
    cancel: () => preview(null)};
}

function dragObject(event, tap) {
  const object = selectedObject(), [x, y] = beyond(event), {width, height} = shown();
  const at = (next) => {
    const [nx, ny] = beyond(next);
    return movedBy(object.polygons, [nx - x, ny - y], width, height);
  };
  return {
    move: (next, moved) => { if (moved) preview(at(next)); },
    end(next, moved) {
      preview(null);
      if (moved) commitObject(object.id, () => changed(object, at(next), {moved: 1}));
      else tap();
    },
    cancel: () => preview(null)};
}

/** Ids of the objects under a pointer, the uppermost first. */
const under = ({clientX, clientY}) => document.elementsFromPoint(clientX, clientY)
  .map(({dataset}) => dataset.object).filter((id) => id !== undefined);

function editing(event) {
  const {dataset} = (event.pointerType === 'touch'
    && handleNear([event.clientX, event.clientY])) || event.target;
  if (dataset.place !== undefined) {
    if (isSecond(dataset.place, event.timeStamp)) {
      return {end: () => removeVertex(placeOf(dataset.place))};
    }
    return dragVertex(event, placeOf(dataset.place), false);
  }
  if (dataset.after !== undefined) return dragVertex(event, placeOf(dataset.after), true);
  const ids = under(event), here = ids.indexOf(state.selected);
  if (here < 0) return tapping(event, () => select(ids[0] ?? null));
  return dragObject(event, () => select(ids[(here + 1) % ids.length]));  // the one below
}

function dragBox(event) {
  const start = position(event);
  const clear = () => $('draft').replaceChildren();
  return {
    move: (next) => { clear(); renderAsking({box: [...start, ...position(next)]}); },
    end(next) {
      clear();
      const [x, y] = position(next);
      askBox([Math.min(start[0], x), Math.min(start[1], y), Math.max(start[0], x),
        Math.max(start[1], y)]);
    },
    cancel: clear};
}

function askBox(box) {
  if (box[2] - box[0] < 2 || box[3] - box[1] < 2) {
    say('Drag from one corner of the box to the other.', 'bad');
  } else {
    ask(state.current, {box}, 'the object in the box');
  }
}

function askPoint(point) {
  if (state.tool === 'add' || state.tool === 'cut') refineAt(point, state.tool);
  else ask(state.current, {point}, 'the object at the point');
}

let last = {place: '', time: -Infinity};

function isSecond(where, time) {  // of a double click; captured pointers give no dblclick
  const second = where === last.place && time - last.time < 400;
  last = {place: second ? '' : where, time};
  return second;
}

function begin(event) {
  if (event.button === 1 || (event.button === 0 && (spaceIsDown || state.tool === 'pan'))) {
    return panning(event);
  }
  if (event.button !== 0) return null;
  if (draw.TOOLS.includes(state.tool)) {
    const [x, y] = onStage(event);
    return draw.gesture(event, isSecond(`${Math.round(x / 6)} ${Math.round(y / 6)}`,
      event.timeStamp));
  }
  if (state.tool === 'box') return dragBox(event);
  return state.tool === 'edit' ? editing(event) : tapping(event, askPoint);
}

// --- pointers -----------------------------------------------------------------------------------
const fingers = new Map();  // pointerId -> [x, y] of the stage
let active = null;  // the gesture that goes on, with its pointer and where it began
let spaceIsDown = false;

function pointerDown(event) {
  if (!shown() || event.target.closest('.floating')) return;
  $('stage').setPointerCapture(event.pointerId);
  if (!event.target.dataset.place) $('stage').focus({preventScroll: true});
  if (event.pointerType === 'touch') fingers.set(event.pointerId, onStage(event));
  if (fingers.size > 1) {  // two fingers move and zoom; what the first one began is not done
    active?.cancel?.();
    active = null;
  } else if (!active) {
    const gesture = begin(event);
    if (gesture) active = {...gesture, id: event.pointerId, start: onStage(event), moved: false};
  }
  event.preventDefault();
}

function pointerMove(event) {
  if (fingers.has(event.pointerId) && fingers.size > 1) {
    pinch(event);
  } else if (active?.id === event.pointerId) {
    const [x, y] = onStage(event), far = event.pointerType === 'touch' ? 10 : 3;
    active.moved ||= Math.hypot(x - active.start[0], y - active.start[1]) > far;
    active.move?.(event, active.moved);
  } else if (shown() && draw.TOOLS.includes(state.tool)) {
    draw.follow(event);
  }
}

function pinch(event) {
  const old = [...fingers.values()].slice(0, 2);
  fingers.set(event.pointerId, onStage(event));
  const now = [...fingers.values()].slice(0, 2);
  const middle = ([[ax, ay], [bx, by]]) => [(ax + bx) / 2, (ay + by) / 2];
  const span = ([[ax, ay], [bx, by]]) => Math.max(1, Math.hypot(ax - bx, ay - by));
  const [from, to] = [middle(old), middle(now)];
  pan(to[0] - from[0], to[1] - from[1]);
  zoom(span(now) / span(old), to);
}

function pointerUp(event) {
  fingers.delete(event.pointerId);
  if (active?.id !== event.pointerId) return;
  const gesture = active;
  active = null;
  if (event.type === 'pointerup') gesture.end?.(event, gesture.moved);
  else gesture.cancel?.();
}

// --- keys ---------------------------------------------------------------------------------------
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

function vertexKey(event) {
  const {dataset} = event.target;
  if (dataset.place === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = event.shiftKey ? 10 : 1, place = placeOf(dataset.place);
  const object = selectedObject(), {width, height} = shown(), [ring, index] = place;
  const points = ringsOf(object.polygons)[ring], [x, y] = points[index], move = ARROWS[event.key];
  if (move) {
    const point = [rounded(clamp(x + step * move[0], width)),
      rounded(clamp(y + step * move[1], height))];
    commitObject(object.id, () => changed(object, withVertex(object.polygons, place, point),
      {moved: 1}));
    reveal(point);
    focusVertex(place);
  } else if (event.key === 'Delete' || event.key === 'Backspace') {
    removeVertex(place);
  } else if (event.key === 'Insert') {
    const [nx, ny] = points[(index + 1) % points.length];
    commitObject(object.id, () => changed(object, withNewVertex(object.polygons, place,
      [rounded((x + nx) / 2), rounded((y + ny) / 2)]), {added: 1}));
    focusVertex(place);
  } else if (event.key === 'PageDown' || event.key === 'PageUp') {
    const to = (index + (event.key === 'PageDown' ? 1 : points.length - 1)) % points.length;
    reveal(points[to]);
    focusVertex([ring, to]);
  } else {
    return;
  }
  event.preventDefault();
}

/** Do by numbers what the pointer does: a point, a box, or a whole outline. */
function useNumbers() {
  const numbers = $('numbers').value.split(/[\s,;]+/).filter(Boolean).map(Number);
  const {width, height} = shown();
  if (numbers.some(Number.isNaN) || numbers.length < 2 || numbers.length % 2) {
    say('Give two numbers (a point), four (a box) or six and more (an outline).', 'bad');
    return;
  }
  if (numbers.length > 4) {
    const ring = numbers.flatMap((x, k) => (k % 2 ? [] : [[rounded(clamp(x, width)),
      rounded(clamp(numbers[k + 1], height))]]));
    if (!draw.TOOLS.includes(state.tool)) setTool('draw');
    draw.put(ring);
    return;
  }
  const kind = numbers.length === 2 ? 'point' : 'box';
  if (!taught(kind)) say(`This model was not taught ${ASKED[kind]}.`, 'bad');
  else if (kind === 'point') askPoint(numbers);
  else ask(state.current, {box: numbers}, 'the object in the box');
}

// --- tools --------------------------------------------------------------------------------------
const radio = (tool) => document.querySelector(`input[name=tool][value=${tool}]`);

function choose(tool) {
  if (radio(tool).disabled || $('tools').disabled) {
    say(radio(tool).disabled ? `${radio(tool).parentElement.title}.` : 'Open a picture first.',
      'bad');
  } else {
    setTool(tool);
  }
}

const KEYS = {edit: ['e', 'edit: select, move vertices and objects'], pan: ['m', 'move the view'],
  draw: ['d', 'draw an object'], part: ['a', 'draw another part of the selected object'],
  hole: ['h', 'draw a hole into it'], point: ['p', 'click a point'], box: ['b', 'drag a box'],
  add: ['i', 'click to add to the selected object'], cut: ['x', 'click to take from it']};

export function connect() {
  const stage = $('stage');
  $('tools').onchange = () => setTool(document.querySelector('input[name=tool]:checked').value);
  $('tools').addEventListener('click', ({detail}) => {  // by pointer: arrows are the picture's
    if (detail) stage.focus({preventScroll: true});
  });
  on('tool', () => {
    radio(state.tool).checked = true;
    stage.dataset.tool = state.tool;
  });
  $('ask-numbers').onclick = useNumbers;
  for (const [name, listener] of Object.entries({pointerdown: pointerDown,
    pointermove: pointerMove, pointerup: pointerUp, pointercancel: pointerUp})) {
    stage.addEventListener(name, listener);
  }
  stage.addEventListener('keydown', vertexKey);
  stage.addEventListener('focusin', ({target}) => {
    const {place} = target.dataset;
    if (place !== undefined && !active) {
      const [ring, index] = placeOf(place);
      reveal(ringsOf(selectedObject().polygons)[ring][index]);
    }
  });
  for (const [tool, [key, text]] of Object.entries(KEYS)) {
    bind(key, text, () => choose(tool));
    radio(tool).setAttribute('aria-keyshortcuts', key);
  }
  bind('Space', 'and drag: move the view', () => { spaceIsDown = true; });
  const release = () => { spaceIsDown = false; };
  addEventListener('keyup', ({key}) => { if (key === ' ') release(); });
  addEventListener('blur', release);
  bind('Alt+ArrowLeft Alt+ArrowRight Alt+ArrowUp Alt+ArrowDown',
    'move the selected object by a pixel, with Shift ten',
    ({key}) => shiftSelected(ARROWS[key]), {shown: 'Alt+← → ↑ ↓'});
  bind('Alt+Shift+ArrowLeft Alt+Shift+ArrowRight Alt+Shift+ArrowUp Alt+Shift+ArrowDown', '',
    ({key}) => shiftSelected(ARROWS[key].map((step) => 10 * step)));
  bind('Delete Backspace', 'delete the selected object',
    () => { if (!selectedObject()) return false; if (free()) removeObject(state.selected); });
  bind('l', 'lock or unlock the selected object',
    () => (selectedObject() ? toggle(state.selected, 'locked') : false));
  bind('v', 'hide or show it',
    () => (selectedObject() ? toggle(state.selected, 'hidden') : false));
  bind('o', 'hide the others; all are shown again', hideOthers);
  bind('Ctrl+z', 'undo', undo);
  bind('Ctrl+Shift+z Ctrl+y', 'redo', redo);
  bind('Escape', '', () => {
    const running = state.running.get(state.current);
    running?.control.abort();
    return Boolean(running);
  }, {typing: true});
  bind('Escape', '', () => select(null));
  on('current', () => { active = null; preview(null); });
}

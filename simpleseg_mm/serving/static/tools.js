/* What the pointer and the keys do on the picture. */
import {ask} from './asking.js';
import {$, say} from './dom.js';
import {clamp, ringsOf, rounded, withRing} from './geometry.js';
import {handleOf, preview, render, renderAsking} from './overlay.js';
import {commit, commitObject, on, redo, select, selectedObject, shown, state, undo
} from './store.js';
import {position} from './view.js';

const placeOf = (text) => text.split(',').map(Number);

/** The fields of an object that was changed by hand; `done` counts what was done. */
const changed = (object, polygons, done = {}) => ({polygons, score: null, agreement: null,
  edited: true, actions: {...object.actions, ...Object.fromEntries(
    Object.entries(done).map(([name, count]) => [name, (object.actions[name] || 0) + count]))}});

// --- vertices -----------------------------------------------------------------------------------
const withVertex = (polygons, [ring, index], point) => withRing(polygons, ring,
  (points) => points.map((old, k) => (k === index ? point : old)));
const withNewVertex = (polygons, [ring, index], point) => withRing(polygons, ring,
  (points) => points.toSpliced(index + 1, 0, point));
const withoutVertex = (polygons, [ring, index]) => withRing(polygons, ring,
  (points) => (points.length > 3 ? points.toSpliced(index, 1) : null));  // two are no ring

function removeVertex(place) {
  const object = selectedObject(), polygons = withoutVertex(object.polygons, place);
  if (polygons.length) {
    commitObject(object.id, () => changed(object, polygons, {removed: 1}));
  } else {
    removeObject(object.id);
  }
}

/** Delete an object. What the model wrote and nobody wanted is kept apart, for training. */
export function removeObject(id) {
  const {objects, rejected} = shown();
  const gone = objects.find((object) => object.id === id);
  commit(state.current, {objects: objects.filter((object) => object !== gone),
    rejected: gone.origin ? [...rejected, {...gone.origin, label: gone.label}] : rejected,
    selected: state.selected === id ? null : state.selected});
}

// --- dragging -----------------------------------------------------------------------------------
/** Follow a pointer: `move(point)`, then `end(point)`, pixels of the picture. */
function drag(event, {move, end}) {
  const {pointerId} = event, stage = $('stage');
  stage.setPointerCapture(pointerId);
  const moved = (one) => { if (one.pointerId === pointerId) move(position(one)); };
  const ended = (one) => {
    if (one.pointerId !== pointerId) return;
    for (const name of ['pointermove', 'pointerup', 'pointercancel']) {
      stage.removeEventListener(name, name === 'pointermove' ? moved : ended);
    }
    end(position(one));
  };
  stage.addEventListener('pointermove', moved);
  stage.addEventListener('pointerup', ended);
  stage.addEventListener('pointercancel', ended);
}

function dragVertex(event, place, isNew) {
  const object = selectedObject();
  let [ring, index] = place, {polygons} = object, moved = isNew;
  if (isNew) {
    polygons = withNewVertex(polygons, place, position(event));
    index += 1;
  }
  const set = (point) => preview(polygons = withVertex(polygons, [ring, index], point));
  drag(event, {
    move: (point) => { moved = true; set(point); },
    end: (point) => {
      preview(null);
      if (moved) {
        polygons = withVertex(polygons, [ring, index], point);
        commitObject(object.id, () => changed(object, polygons,
          isNew ? {added: 1} : {moved: 1}));
      }
      render();
      handleOf(`${ring},${index}`)?.focus();
    }});
}

function dragBox(event) {
  const start = position(event);
  drag(event, {
    move: (point) => { $('draft').replaceChildren(); renderAsking({box: [...start, ...point]}); },
    end: ([x, y]) => {
      $('draft').replaceChildren();
      const box = [Math.min(start[0], x), Math.min(start[1], y), Math.max(start[0], x),
        Math.max(start[1], y)];
      if (box[2] - box[0] < 2 || box[3] - box[1] < 2) {
        say('Drag from one corner of the box to the other.', 'bad');
      } else {
        ask(state.current, {box}, 'the object in the box');
      }
    }});
}

let last = {place: '', time: -Infinity};

function isSecond(where, time) {  // of a double click; captured pointers give no dblclick
  const second = where === last.place && time - last.time < 400;
  last = {place: second ? '' : where, time};
  return second;
}

function pointerDown(event) {
  if (event.button !== 0 || !shown()) return;
  const {dataset} = event.target;
  if (state.tool === 'point') {
    ask(state.current, {point: position(event)}, 'the object at the point');
  } else if (state.tool === 'box') {
    dragBox(event);
  } else if (dataset.place !== undefined) {
    if (isSecond(dataset.place, event.timeStamp)) removeVertex(placeOf(dataset.place));
    else dragVertex(event, placeOf(dataset.place), false);
  } else if (dataset.after !== undefined) {
    dragVertex(event, placeOf(dataset.after), true);
  } else if (dataset.object !== undefined) {
    select(dataset.object);
  }
  event.preventDefault();
}

// --- keys ---------------------------------------------------------------------------------------
function vertexKey(event) {
  const {dataset} = event.target;
  if (dataset.place === undefined) return;
  const step = event.shiftKey ? 10 : 1, place = placeOf(dataset.place);
  const object = selectedObject(), {width, height} = shown();
  const ring = ringsOf(object.polygons)[place[0]], [x, y] = ring[place[1]];
  const move = {ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step],
    ArrowDown: [0, step]}[event.key];
  if (move) {
    commitObject(object.id, () => changed(object, withVertex(object.polygons, place,
      [clamp(x + move[0], width), clamp(y + move[1], height)]), {moved: 1}));
  } else if (event.key === 'Delete' || event.key === 'Backspace') {
    removeVertex(place);
  } else if (event.key === 'Insert') {
    const [nx, ny] = ring[(place[1] + 1) % ring.length];
    commitObject(object.id, () => changed(object, withNewVertex(object.polygons, place,
      [rounded((x + nx) / 2), rounded((y + ny) / 2)]), {added: 1}));
  } else {
    return;
  }
  render();
  event.preventDefault();
}

function pageKey(event) {
  const typing = ['INPUT', 'SELECT', 'TEXTAREA'].includes(event.target.tagName)
    && !['radio', 'checkbox'].includes(event.target.type);
  if (event.key === 'Escape') state.running.get(state.current)?.control.abort();
  if (typing || !(event.ctrlKey || event.metaKey)) return;
  const key = event.key.toLowerCase();
  if (key === 'z' && !event.shiftKey) undo();
  else if (key === 'y' || key === 'z') redo();
  else return;
  event.preventDefault();
}

export function connect() {
  $('tools').onchange = () => {
    state.tool = document.querySelector('input[name=tool]:checked').value;
    $('stage').dataset.tool = state.tool;
  };
  $('stage').addEventListener('pointerdown', pointerDown);
  $('stage').addEventListener('keydown', vertexKey);
  addEventListener('keydown', pageKey);
  on('current', () => preview(null));
}

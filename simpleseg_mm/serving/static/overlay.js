/* The outlines over the picture. An element an object, which is touched where the object, which is
   a value, is another one; the handles are those of the selected object alone. */
import {$, svg} from './dom.js';
import {countVertices, pathOf, ringPath, ringsOf} from './geometry.js';
import {on, selectedObject, shown, state} from './store.js';
import {seen, unit, view} from './view.js';

const FEW = 400;  // vertices that all have handles; of more, those that are seen and lie apart
const APART = 9, MIDDLE = 26;  // screen pixels between handles; of an edge with a middle one
const FINGER = 20, LARGE = 6, SMALLEST = 1.5, CROWDED = 0.4;  // screen pixels; of an edge
const drawn = new Map();  // id -> {object, selected, polygons, path}
const handles = {middle: new Map(), vertex: new Map(), spread: new Map()};  // key -> element
const layers = [];  // functions that draw into groups of their own
let edited = null;  // polygons of the selected object while they are being dragged
let pinned = null;  // [ring, index] of a vertex that has a handle wherever it is
let owner = null;  // id of the object that the handles are of
let soon = 0, spacing = 0;  // screen pixels between the selected object's vertices
// Drawing costs more than a frame has where there are many outlines. So it is drawn for one view,
// the base, a quarter of the stage beyond its borders, and moved and stretched as a whole while the
// view moves; it is drawn again when that rests, or has gone too far.
const AROUND = 0.25, REST = 120, FAR = 250;  // of the stage; milliseconds
let base = {scale: 1, x: 0, y: 0}, drawnAt = 0, rest = 0;

/** Draw what has changed before the next frame. */
export function renderSoon() {
  soon ||= requestAnimationFrame(() => { soon = 0; render(); });
}

/** Show the selected object with these polygons, which are not its own yet; null: with its own. */
export function preview(polygons) {
  edited = polygons;
  renderSoon();
}

/** The handle of a vertex, [ring, index] or as a text; null where there is none. */
export const handleOf = (place) => handles.vertex.get(String(place)) || null;

/** The handle, of a vertex or between two, that a finger at (x, y) of the screen means; null where
    there is none. A vertex goes first. Where they lie close, it has to be met. */
export function handleNear([x, y]) {
  const most = Math.min(FINGER, spacing / 2);
  for (const kind of ['vertex', 'middle']) {
    let best = null, least = most;
    for (const element of handles[kind].values()) {
      const {left, top, width, height} = element.getBoundingClientRect();
      const away = Math.hypot(left + width / 2 - x, top + height / 2 - y);
      if (away <= least) [best, least] = [element, away];
    }
    if (best) return best;
  }
  return null;
}

/** Give a vertex a handle, and the focus. */
export function focusVertex(place) {
  pinned = place;
  render();
  handleOf(place)?.focus({preventScroll: true});
}

/** Call `layer()` whenever the page is drawn. */
export const addLayer = (layer) => layers.push(layer);

export function render() {
  soon = 0;
  const document = shown();
  $('overlay').toggleAttribute('hidden', !document);
  if (!document) return;
  clearTimeout(rest);
  base = {...view};
  drawnAt = performance.now();
  const {clientWidth, clientHeight} = $('stage');
  $('overlay').style.setProperty('transform', 'none');
  change($('world'), {transform: `translate(${view.x + AROUND * clientWidth} ${
    view.y + AROUND * clientHeight}) scale(${view.scale})`});
  renderShapes(document);
  renderHandles();
  renderDraft();
  for (const layer of layers) layer();
}

/** Move what is drawn with the view. */
function follow() {
  const stretch = view.scale / base.scale, {clientWidth, clientHeight} = $('stage');
  const x = view.x - stretch * base.x, y = view.y - stretch * base.y;
  $('overlay').style.setProperty('transform', `translate(${x}px, ${y}px) scale(${stretch})`);
  clearTimeout(rest);
  rest = setTimeout(renderSoon, REST);
  const isOutside = (start, length) => -start / stretch < -AROUND * length
    || (length - start) / stretch > (1 + AROUND) * length;
  const isFar = isOutside(x, clientWidth) || isOutside(y, clientHeight) || stretch > 2;
  if (isFar && performance.now() - drawnAt > FAR) renderSoon();
}

/** Set attributes that are others than before. */
function change(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }
}

function renderShapes(document) {
  const visible = document.objects.filter((object) => !object.hidden);
  const ids = new Set(visible.map(({id}) => id));
  for (const [id, {path}] of drawn) {
    if (ids.has(id)) continue;
    path.remove();
    drawn.delete(id);
  }
  let next = $('shapes').firstChild;
  for (const object of visible) {
    const was = drawn.get(object.id), path = was?.path || svg('path', {'data-object': object.id});
    if (path === next) next = next.nextSibling;
    else $('shapes').insertBefore(path, next);  // in the order of the list
    const selected = object.id === state.selected;
    const polygons = selected && edited ? edited : object.polygons;
    if (was && was.object === object && was.selected === selected && was.polygons === polygons) {
      continue;
    }
    change(path, {fill: object.color, stroke: object.color,
      class: `shape${selected ? ' selected' : ''}${object.locked ? ' locked' : ''}`});
    if (was?.polygons !== polygons) path.setAttribute('d', pathOf(polygons));
    if (was?.object.label !== object.label) {
      path.replaceChildren(svg('title', {}));
      path.firstChild.textContent = object.label;
    }
    drawn.set(object.id, {object, selected, polygons, path});
  }
}

// --- handles ------------------------------------------------------------------------------------
function renderHandles() {
  const selected = selectedObject();
  const object = selected && !selected.hidden && !selected.locked
    && !state.running.has(state.current) && state.tool === 'edit' ? selected : null;
  if (owner !== (object?.id ?? null)) {
    owner = object?.id ?? null;
    pinned = null;
    for (const kind of Object.keys(handles)) fill(kind, []);
  }
  if (!object) return;
  const size = unit(), rings = ringsOf(edited || object.polygons), total = countVertices(rings);
  const apart = total > FEW ? APART * size : 0, long = MIDDLE * size;
  const [x1, y1, x2, y2] = seen(AROUND);
  spacing = rings.reduce((sum, ring) => sum + lengthOf(ring), 0) / Math.max(total, 1) / size;
  const r = Math.max(SMALLEST, Math.min(LARGE, CROWDED * spacing));  // they hide no small object
  $('handles').classList.toggle('small', r < LARGE / 2);
  const isSeen = (x, y) => x > x1 && x < x2 && y > y1 && y < y2;
  const found = {middle: [], vertex: [], spread: []};
  let number = 0;
  rings.forEach((ring, ringIndex) => {
    let before = null;
    ring.forEach(([x, y, spread], index) => {
      number += 1;
      const place = `${ringIndex},${index}`;
      const held = pinned && pinned[0] === ringIndex && pinned[1] === index;
      if (!held && total > FEW && (!isSeen(x, y)
          || (before && Math.hypot(x - before[0], y - before[1]) < apart))) return;
      before = [x, y];
      found.vertex.push([place, {cx: x, cy: y, r: r * size, fill: object.color,
        'aria-label': `Vertex ${number} of ${total} at ${x.toFixed(0)}, ${y.toFixed(0)}`}]);
      if (spread) found.spread.push([place, {cx: x, cy: y, r: spread[1]}]);
      const [nx, ny] = ring[(index + 1) % ring.length], mx = (x + nx) / 2, my = (y + ny) / 2;
      if (isSeen(mx, my) && Math.hypot(nx - x, ny - y) > long) {
        found.middle.push([place, {cx: mx, cy: my, r: 3.5 * size, stroke: object.color}]);
      }
    });
  });
  for (const [kind, wanted] of Object.entries(found)) fill(kind, wanted);
}

const lengthOf = (ring) => ring.reduce((sum, [x, y], k) => {
  const [lastX, lastY] = ring.at(k - 1);
  return sum + Math.hypot(x - lastX, y - lastY);
}, 0);

const ALWAYS = {spread: (place) => ({class: 'spread', 'aria-hidden': 'true', 'data-of': place}),
  middle: (place) => ({class: 'middle', 'aria-hidden': 'true', 'data-after': place}),
  vertex: (place) => ({class: 'vertex', tabindex: 0, role: 'button', 'data-place': place})};

/** Give a layer of handles these elements, [place, attributes] each; those that are there stay. */
function fill(kind, wanted) {
  const layer = $(`${kind}-handles`), pool = handles[kind];
  let next = layer.firstChild;
  for (const [place, attributes] of wanted) {
    let element = pool.get(place);
    if (!element) pool.set(place, element = svg('circle', ALWAYS[kind](place)));
    if (element === next) next = next.nextSibling;
    else layer.insertBefore(element, next);
    change(element, attributes);
  }
  while (next) {
    const gone = next;
    next = next.nextSibling;
    pool.delete(gone.dataset.place ?? gone.dataset.after ?? gone.dataset.of);
    gone.remove();
  }
}

// --- what is being written or asked -------------------------------------------------------------
function renderDraft() {
  const running = state.running.get(state.current), layer = $('draft');
  if (!running && !layer.firstChild) return;
  layer.replaceChildren();
  if (!running) return;
  const {draft, asking} = running;
  if (asking) renderAsking(asking);
  const written = draft.slice(0, -1).flat(), growing = draft.at(-1) || [];
  svg('path', {class: 'draft', d: ringPath(written, true) + ringPath(growing, false)}, layer);
  for (const [x, y] of growing.flat()) {
    svg('circle', {class: 'draft-dot', cx: x, cy: y, r: 4 * unit()}, layer);
  }
}

/** Show the point or box that is, or is about to be, asked about. */
export function renderAsking({point, box}) {
  const layer = $('draft');
  if (point) svg('circle', {class: 'asking', cx: point[0], cy: point[1], r: 8 * unit()}, layer);
  if (box) {
    svg('rect', {class: 'asking', x: Math.min(box[0], box[2]), y: Math.min(box[1], box[3]),
      width: Math.abs(box[2] - box[0]), height: Math.abs(box[3] - box[1])}, layer);
  }
}

export function connect() {
  for (const event of ['document', 'selection', 'running', 'tool']) on(event, renderSoon);
  on('view', follow);
  on('current', () => {
    for (const {path} of drawn.values()) path.remove();
    drawn.clear();
    edited = null;
    renderSoon();
  });
}

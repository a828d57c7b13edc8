/* The outlines over the picture. An element an object, which is touched where the object, which is
   a value, is another one; the handles are those of the selected object alone. */
import {$, svg} from './dom.js';
import {countVertices, pathOf, ringPath, ringsOf} from './geometry.js';
import {on, selectedObject, shown, state} from './store.js';
import {unit, view} from './view.js';

const drawn = new Map();  // id -> {object, selected, path}
let edited = null;  // polygons of the selected object while they are being dragged
let soon = 0;

/** Draw what has changed before the next frame. */
export function renderSoon() {
  soon ||= requestAnimationFrame(() => { soon = 0; render(); });
}

/** Show the selected object with these polygons, which are not its own yet; null: with its own. */
export function preview(polygons) {
  edited = polygons;
  renderSoon();
}

/** The handle of a vertex, [ring, index]; null where there is none. */
export const handleOf = (place) => $('handles').querySelector(`[data-place="${place}"]`);

export function render() {
  soon = 0;
  const document = shown();
  $('overlay').toggleAttribute('hidden', !document);
  if (!document) return;
  $('world').setAttribute('transform',
    `translate(${view.x} ${view.y}) scale(${view.scale})`);
  renderShapes(document);
  renderHandles();
  renderDraft();
}

function renderShapes(document) {
  const visible = document.objects.filter((object) => !object.hidden);
  const ids = new Set(visible.map(({id}) => id));
  for (const [id, {path}] of drawn) {
    if (ids.has(id)) continue;
    path.remove();
    drawn.delete(id);
  }
  for (const object of visible) {
    const selected = object.id === state.selected;
    const polygons = selected && edited ? edited : object.polygons;
    const was = drawn.get(object.id);
    if (was && was.object === object && was.selected === selected && was.polygons === polygons) {
      continue;
    }
    const path = was?.path || svg('path', {'data-object': object.id}, $('shapes'));
    const fields = {class: `shape${selected ? ' selected' : ''}`, fill: object.color,
      stroke: object.color};
    for (const [name, value] of Object.entries(fields)) path.setAttribute(name, value);
    if (was?.polygons !== polygons) path.setAttribute('d', pathOf(polygons));
    if (was?.object.label !== object.label) {
      path.replaceChildren(svg('title', {}));
      path.firstChild.textContent = object.label;
    }
    drawn.set(object.id, {object, selected, polygons, path});
  }
}

function renderHandles() {
  const held = document.activeElement?.dataset?.place;
  const object = selectedObject(), handles = $('handles');
  handles.replaceChildren();
  if (!object || object.hidden || object.locked || state.running.has(state.current)) return;
  const size = unit(), rings = ringsOf(edited || object.polygons), total = countVertices(rings);
  let number = 0;
  rings.forEach((ring, ringIndex) => {
    for (const [x, y, spread] of ring) {
      if (spread) svg('circle', {class: 'spread', cx: x, cy: y, r: spread[1],
        'aria-hidden': 'true'}, handles);
    }
    ring.forEach(([x, y], index) => {
      const [nx, ny] = ring[(index + 1) % ring.length];
      svg('circle', {class: 'middle', cx: (x + nx) / 2, cy: (y + ny) / 2, r: 3.5 * size,
        stroke: object.color, 'aria-hidden': 'true', 'data-after': `${ringIndex},${index}`},
      handles);
    });
    ring.forEach(([x, y], index) => {
      number += 1;
      svg('circle', {class: 'vertex', cx: x, cy: y, r: 6 * size, fill: object.color, tabindex: 0,
        role: 'button', 'data-place': `${ringIndex},${index}`,
        'aria-label': `Vertex ${number} of ${total} at ${x.toFixed(0)}, ${y.toFixed(0)}`},
      handles);
    });
  });
  if (held) handleOf(held)?.focus();
}

function renderDraft() {
  const running = state.running.get(state.current), layer = $('draft');
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
  for (const event of ['document', 'selection', 'running', 'view']) on(event, renderSoon);
  on('current', () => {
    for (const {path} of drawn.values()) path.remove();
    drawn.clear();
    edited = null;
    renderSoon();
  });
}

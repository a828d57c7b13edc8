/* What of the picture is seen, and how large: the stage shows `scale` screen pixels a pixel of the
   picture, whose corner is at (x, y) of the stage. */
import {$} from './dom.js';
import {clamp, rounded} from './geometry.js';
import {bind} from './keys.js';
import {emit, on, shown} from './store.js';

export const view = {scale: 1, x: 0, y: 0};
const MARGIN = 10;  // screen pixels around a picture that fits
const KEPT = 60;  // screen pixels of the picture that always stay in the stage
const LARGEST = 64;  // screen pixels a pixel
const STEP = 1.3, FAR = 80;  // of a key: zoom, screen pixels
let fitted = true;

function fitting() {
  const {clientWidth, clientHeight} = $('stage'), {width, height} = shown();
  return Math.max(1e-3, Math.min((clientWidth - 2 * MARGIN) / width,
    (clientHeight - 2 * MARGIN) / height));
}

/** The whole picture, in the middle. */
export function fit() {
  const document = shown();
  if (!document) return;
  const {clientWidth, clientHeight} = $('stage'), scale = fitting();
  place({scale, x: (clientWidth - document.width * scale) / 2,
    y: (clientHeight - document.height * scale) / 2});
  fitted = true;
}

/** Show another part; event 'view'. Some of the picture stays in the stage. */
export function place(next) {
  const {clientWidth, clientHeight} = $('stage'), {width, height} = shown();
  Object.assign(view, next);
  view.x = within(view.x, KEPT - width * view.scale, clientWidth - KEPT);
  view.y = within(view.y, KEPT - height * view.scale, clientHeight - KEPT);
  fitted = false;
  $('picture').style.setProperty('transform',
    `translate(${view.x}px, ${view.y}px) scale(${view.scale})`);
  $('picture').classList.toggle('pixels', view.scale >= 4);
  emit('view');
}

const within = (value, low, high) => Math.max(low, Math.min(value, high));

/** Move the picture by screen pixels. */
export const pan = (dx, dy) => { if (shown()) place({x: view.x + dx, y: view.y + dy}); };

/** Zoom by a factor; (x, y) of the stage, its middle unless told, stays where it is. */
export function zoom(factor, [x, y] = [$('stage').clientWidth / 2, $('stage').clientHeight / 2]) {
  if (!shown()) return;
  const least = Math.min(fitting(), 1) / 2;
  const scale = within(view.scale * factor, least, Math.max(LARGEST, least));
  const ratio = scale / view.scale;
  place({scale, x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio});
}

/** Bring a point of the picture into the stage where it is outside. */
export function reveal([x, y]) {
  const {clientWidth, clientHeight} = $('stage');
  const at = [view.x + x * view.scale, view.y + y * view.scale];
  const edge = Math.min(40, clientWidth / 4, clientHeight / 4);
  const dx = within(at[0], edge, clientWidth - edge) - at[0];
  const dy = within(at[1], edge, clientHeight - edge) - at[1];
  if (dx || dy) pan(dx, dy);
}

/** Screen pixels as pixels of the picture. */
export const unit = () => 1 / view.scale;

/** x1, y1, x2, y2 of the picture that the stage shows, and `around` of the stage on each side. */
export function seen(around = 0) {
  const {clientWidth, clientHeight} = $('stage'), w = clientWidth * around, h = clientHeight * around;
  return [(-w - view.x) / view.scale, (-h - view.y) / view.scale,
    (clientWidth + w - view.x) / view.scale, (clientHeight + h - view.y) / view.scale];
}

/** Where a pointer event is: in the stage, screen pixels. */
export function onStage(event) {
  const frame = $('stage').getBoundingClientRect(), {clientLeft, clientTop} = $('stage');
  return [event.clientX - frame.left - clientLeft, event.clientY - frame.top - clientTop];
}

/** Where a pointer event is: pixels of the picture, or beyond it. */
export function beyond(event) {
  const [x, y] = onStage(event);
  return [(x - view.x) / view.scale, (y - view.y) / view.scale];
}

/** Where a pointer event is: pixels of the picture, inside it. */
export function position(event) {
  const [x, y] = beyond(event), {width, height} = shown();
  return [rounded(clamp(x, width)), rounded(clamp(y, height))];
}

function wheel(event) {
  if (!shown()) return;
  event.preventDefault();
  const lines = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
  const [dx, dy] = [event.deltaX * lines, event.deltaY * lines];
  if (event.shiftKey) pan(-(dx || dy), 0);
  else zoom(Math.exp(-within(dy, -300, 300) * (event.ctrlKey ? 0.01 : 0.0015)), onStage(event));
}

export function connect() {
  $('stage').addEventListener('wheel', wheel, {passive: false});
  new ResizeObserver(() => {
    if (!shown()) return;
    if (fitted) fit();
    else place({});
  }).observe($('stage'));
  $('zoom-in').onclick = () => zoom(STEP);
  $('zoom-out').onclick = () => zoom(1 / STEP);
  $('fit').onclick = fit;
  on('current', () => { $('zoom').hidden = !shown(); });
  on('view', () => {
    const text = `${Math.round(view.scale * 100)} %`;
    if ($('fit').textContent !== text) $('fit').textContent = text;
  });
  bind('+', 'zoom in', () => zoom(STEP));
  bind('-', 'zoom out', () => zoom(1 / STEP));
  bind('0', 'the whole picture', fit);
  const ways = {ArrowLeft: [FAR, 0], ArrowRight: [-FAR, 0], ArrowUp: [0, FAR],
    ArrowDown: [0, -FAR]};
  bind(Object.keys(ways).join(' '), 'move the view', ({key}) => pan(...ways[key]),
    {shown: '← → ↑ ↓'});
}

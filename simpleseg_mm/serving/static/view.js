/* What of the picture is seen, and how large: the stage shows `scale` screen pixels a pixel of the
   picture, whose corner is at (x, y) of the stage. */
import {$} from './dom.js';
import {clamp, rounded} from './geometry.js';
import {emit, shown} from './store.js';

export const view = {scale: 1, x: 0, y: 0};
const MARGIN = 10;  // screen pixels around a picture that fits

/** The whole picture, in the middle. */
export function fit() {
  const document = shown();
  if (!document) return;
  const {clientWidth, clientHeight} = $('stage');
  const scale = Math.min((clientWidth - 2 * MARGIN) / document.width,
    (clientHeight - 2 * MARGIN) / document.height);
  place({scale, x: (clientWidth - document.width * scale) / 2,
    y: (clientHeight - document.height * scale) / 2});
}

/** Show another part; event 'view'. */
export function place(next) {
  Object.assign(view, next);
  $('picture').style.setProperty('transform',
    `translate(${view.x}px, ${view.y}px) scale(${view.scale})`);
  emit('view');
}

/** Screen pixels as pixels of the picture. */
export const unit = () => 1 / view.scale;

/** Where a pointer event is: pixels of the picture, inside it. */
export function position(event) {
  const frame = $('stage').getBoundingClientRect(), {width, height} = shown();
  return [rounded(clamp((event.clientX - frame.left - view.x) / view.scale, width)),
    rounded(clamp((event.clientY - frame.top - view.y) / view.scale, height))];
}

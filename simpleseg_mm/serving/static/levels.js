/* A large picture at half, a quarter, ... of its size: moving one of these takes the browser a
   part of the time that shrinking the whole picture in every frame takes. */
import {$, html} from './dom.js';
import {on} from './store.js';
import {view} from './view.js';

const SMALL = 1200;  // pixels of a picture's longer side that needs no smaller one
let levels = [];  // canvases, of 1/2, 1/4, ...
let turn = 0;

/** Show the smallest one that has a pixel for each of the screen. */
function choose() {
  const {x, y, scale} = view, image = $('picture');
  const wanted = Math.floor(-Math.log2(scale * devicePixelRatio) + 1e-6);
  const number = Math.min(wanted, levels.length) - 1;  // -1: the picture itself
  levels.forEach((level, k) => {
    level.hidden = k !== number;
    if (k === number) {
      level.style.setProperty('transform', `translate(${x}px, ${y}px) scale(${
        scale * image.naturalWidth / level.width}, ${
        scale * image.naturalHeight / level.height})`);
    }
  });
  image.classList.toggle('unseen', number >= 0);
}

function clear() {
  turn += 1;
  for (const level of levels) level.remove();
  levels = [];
  choose();
}

async function make() {
  clear();
  const image = $('picture'), mine = turn;
  let {naturalWidth: width, naturalHeight: height} = image;
  while (Math.max(width, height) > SMALL) {
    [width, height] = [Math.ceil(width / 2), Math.ceil(height / 2)];
    const bitmap = await createImageBitmap(image, {resizeWidth: width, resizeHeight: height,
      resizeQuality: 'medium'});
    if (mine !== turn) return;  // another picture has come
    const level = html('canvas', {width, height, className: 'level', hidden: true,
      attributes: {'aria-hidden': 'true'}});
    level.getContext('bitmaprenderer').transferFromImageBitmap(bitmap);
    image.after(level);
    levels.push(level);
    choose();
  }
}

export function connect() {
  $('picture').addEventListener('load', () => make().catch(clear));
  on('current', clear);
  on('view', choose);
}

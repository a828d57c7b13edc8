/* The list of pictures: what is in it, which is shown, what is done. Rows have one height, and only
   those that are seen are elements, so that thousands are cheap. */
import {$, html, say} from './dom.js';
import {bind} from './keys.js';
import {visit} from './pictures.js';
import {canRestore, commit, on, removeDocument, restore, shown, state} from './store.js';

const ROW = 40;  // pixels, as in style.css
const FILTERS = {all: () => true, todo: ({done, review}) => !done && !review,
  review: ({done, review}) => !done && review, done: ({done}) => done};
let keys = [];   // of the rows, in order
let place = 0;   // of the shown one, or where it was
let soon = 0;

export const filters = (name, document) => FILTERS[name](document);
const countOf = ({path, loaded, count, objects}) => (path && !loaded ? count || 0 : objects.length);

/** How sure the least sure object is; what has none comes before, hand-made outlines behind. */
export function sureness({objects, review}) {
  if (!objects.length) return review ? -1 : 2;
  return Math.min(...objects.map(({score}) => score ?? 1.5));
}

// --- order --------------------------------------------------------------------------------------
function arrange() {
  const documents = [...state.documents.values()].filter(FILTERS[$('filter').value]);
  if ($('order').value === 'sure') {
    const sure = new Map(documents.map((document) => [document, sureness(document)]));
    documents.sort((a, b) => sure.get(a) - sure.get(b) || a.order - b.order);
  }
  keys = documents.map(({key}) => key);
  const index = keys.indexOf(state.current);
  if (index >= 0) place = index;
}

/** The next one in the list, or with -1 the last one; null at the ends. */
function neighbour(step) {
  arrange();
  const index = keys.indexOf(state.current);
  return keys[index >= 0 ? index + step : step > 0 ? place : place - 1] ?? null;
}

function go(step) {
  const key = neighbour(step);
  if (key === null) say(step > 0 ? 'This is the last one of the list.'
    : 'This is the first one of the list.');
  else visit(key);
}

/** Mark the shown picture done, and show the next one. */
function doneAndNext() {
  if (!shown()) return;
  const next = neighbour(1);
  commit(state.current, {done: true, review: false});
  if (next === null) say('Done. This was the last one of the list.');
  else visit(next);
}

/** Show those that are to be reviewed, least sure first. */
export function review() {
  $('filter').value = 'review';
  $('order').value = 'sure';
  place = 0;
  arrange();
  renderSoon();
  if (keys.length) visit(keys[0]);
}

// --- removing -----------------------------------------------------------------------------------
function remove(key) {
  const {name, objects} = state.documents.get(key);
  if (objects.length && !confirm(`Remove ${name} with its ${objects.length} `
    + `${objects.length === 1 ? 'object' : 'objects'} from the list?`)) return;
  const was = state.current;
  removeDocument(key);
  say(`${name} was removed from the list; Undo brings it back.`);
  arrange();
  if (was === key && keys.length) visit(keys[Math.min(place, keys.length - 1)]);
}

// --- rows ---------------------------------------------------------------------------------------
function renderSoon() {
  soon ||= requestAnimationFrame(() => { soon = 0; render(); });
}

function render() {
  arrange();
  const all = [...state.documents.values()], done = all.filter(FILTERS.done).length;
  const waiting = all.filter(FILTERS.review).length;
  $('pictures-count').textContent = all.length ? `${done} of ${all.length} done`
    + `${waiting ? `, ${waiting} to review` : ''}` : 'None yet.';
  $('restore').hidden = !canRestore();
  $('turn').hidden = !all.length;
  const document = shown();
  $('done').checked = Boolean(document?.done);
  $('done').disabled = !document;
  $('place').textContent = document ? `${keys.includes(state.current) ? place + 1 : '–'} of `
    + `${keys.length}` : `${keys.length}`;
  renderRows();
}

function renderRows() {
  const list = $('pictures'), box = $('pictures-box');
  const from = Math.max(0, Math.floor(box.scrollTop / ROW) - 5);
  const to = Math.min(keys.length, Math.ceil((box.scrollTop + box.clientHeight) / ROW) + 5);
  list.style.setProperty('height', `${keys.length * ROW}px`);
  const held = document.activeElement?.closest?.('#pictures li')?.dataset.key;
  list.replaceChildren(...keys.slice(from, to).map((key, index) => row(key, from + index)));
  if (held) [...list.children].find(({dataset}) => dataset.key === held)?.querySelector('button')
    .focus({preventScroll: true});
}

function row(key, index) {
  const document = state.documents.get(key);
  const {name, done, review, fault, conflict, changed} = document;
  const [mark, means] = fault || conflict || changed
    ? ['⚠', fault || (conflict ? 'changed in two places' : 'changed since it was annotated')]
    : done ? ['✓', 'done'] : review ? ['◐', 'to review'] : ['', ''];
  const count = countOf(document);
  const made = html('li', {attributes: {'data-key': key, 'aria-setsize': keys.length,
    'aria-posinset': index + 1, ...key === state.current && {'aria-current': 'true'}}, children: [
    html('span', {className: 'mark', textContent: mark, title: means,
      attributes: mark ? {role: 'img', 'aria-label': means} : {}}),
    html('button', {type: 'button', className: 'name', textContent: name, title: name,
      onclick: () => visit(key)}),
    html('span', {className: 'count', textContent: count || '',
      title: `${count} ${count === 1 ? 'object' : 'objects'}`}),
    ...document.path ? [] : [html('button', {type: 'button', textContent: '×',
      onclick: () => remove(key), attributes: {'aria-label': `Take ${name} out of the list`}})]]});
  made.style.setProperty('top', `${index * ROW}px`);
  return made;
}

function reveal() {
  arrange();
  const index = keys.indexOf(state.current), box = $('pictures-box');
  if (index < 0) return;
  if (index * ROW < box.scrollTop) box.scrollTop = index * ROW;
  const low = (index + 1) * ROW - box.clientHeight;
  if (low > box.scrollTop) box.scrollTop = low;
}

export function connect() {
  $('last').onclick = () => go(-1);
  $('next').onclick = () => go(1);
  $('done').onchange = ({target}) => commit(state.current, target.checked
    ? {done: true, review: false} : {done: false});
  $('done-next').onclick = doneAndNext;
  $('restore').onclick = restore;
  $('pictures-box').addEventListener('scroll', renderSoon);
  for (const name of ['filter', 'order']) {
    $(name).onchange = () => { $('pictures-box').scrollTop = 0; place = 0; renderSoon(); };
  }
  const notInText = (action) => ({target}) => (target.tagName === 'TEXTAREA' ? false : action());
  bind('PageDown', 'the next picture', notInText(() => go(1)), {typing: true});
  bind('PageUp', 'the picture before', notInText(() => go(-1)), {typing: true});
  bind('Ctrl+Enter', 'mark the picture done, and show the next', doneAndNext, {typing: true});
  addEventListener('resize', renderSoon);
  for (const event of ['list', 'document', 'current']) on(event, renderSoon);
  on('current', reveal);
  render();
}

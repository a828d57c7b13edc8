/* The list of the shown document's objects. A row is made anew where its object is another value,
   so that lists of thousands stay quick. */
import {setLabel} from './classes.js';
import {$, html, svg} from './dom.js';
import {countVertices, ringsOf} from './geometry.js';
import {canRedo, canUndo, on, redo, select, shown, state, undo} from './store.js';
import {hideOthers, removeObject, toggle} from './tools.js';

const rows = new Map();  // id -> {object, index, selected, row}
const NARROW = '(max-width: 50rem)';  // as in style.css
let scrolledTo = null;  // id of the object that was brought into sight last

function render() {
  const objects = shown()?.objects || [], list = $('objects');
  let next = list.firstChild;
  objects.forEach((object, index) => {
    const selected = object.id === state.selected, was = rows.get(object.id);
    if (was && was.object === object && was.selected === selected && was.index === index) {
      if (was.row === next) next = next.nextSibling;
      else list.insertBefore(was.row, next);
      return;
    }
    const row = rowOf(object, index, selected);
    if (was) {
      if (was.row === next) next = next.nextSibling;
      replace(was.row, row);
    }
    list.insertBefore(row, next);
    rows.set(object.id, {object, index, selected, row});
  });
  while (next) {
    const gone = next;
    next = next.nextSibling;
    rows.delete(gone.dataset.object);
    gone.remove();
  }
  $('undo').disabled = !canUndo();
  $('redo').disabled = !canRedo();
  $('export').disabled = $('others').disabled = !objects.length;
  const others = objects.filter(({id}) => id !== state.selected);
  $('others').textContent = objects.some(({hidden}) => hidden)
    && (!state.selected || others.every(({hidden}) => hidden)) ? 'Show all' : 'Hide others';
  if (state.selected !== scrolledTo) bringIntoSight(rows.get(scrolledTo = state.selected)?.row);
}

/** Put a new row in the place of an old one; the focus stays where it was. */
function replace(old, row) {
  const {activeElement} = document;
  const act = old.contains(activeElement) ? activeElement.dataset.act ?? '' : null;
  old.replaceWith(row);
  if (act !== null) (row.querySelector(`[data-act="${act}"]`) || row).focus({preventScroll: true});
}

/** Scroll the list, or on a narrow screen the panel, to a row. */
function bringIntoSight(row) {
  if (!row) return;
  const box = matchMedia(NARROW).matches ? row.closest('aside') : $('objects');
  const frame = box.getBoundingClientRect(), {top, bottom} = row.getBoundingClientRect();
  if (top === bottom) return;  // its panel is not in front
  if (top < frame.top) box.scrollTop -= frame.top - top;
  else if (bottom > frame.bottom) box.scrollTop += bottom - frame.bottom;
}

function rowOf(object, index, selected) {
  const swatch = html('span', {className: 'swatch'});
  swatch.style.setProperty('background', object.color);
  const name = selected ? nameField(object) : html('button', {type: 'button',
    textContent: object.label, title: object.label, onclick: () => select(object.id)});
  name.className = 'name';
  const called = `object ${index + 1}, ${object.label}`;
  return html('li', {tabIndex: -1, className: selected ? 'selected' : '',
    attributes: {'data-object': object.id}, children: [
      button('hidden', object.hidden ? '○' : '◉', `${object.hidden ? 'Show' : 'Hide'} ${called}`,
        () => toggle(object.id, 'hidden')),
      button('locked', padlock(object.locked), `${object.locked ? 'Unlock' : 'Lock'} ${called}`,
        () => toggle(object.id, 'locked')),
      swatch, name, scoreOf(object), figure(countVertices(ringsOf(object.polygons)), 'vertices'),
      button('remove', '×', `Remove ${called}`, () => removeObject(object.id), object.locked)]});
}

function nameField(object) {
  return html('input', {value: object.label, maxLength: 1000, autocomplete: 'off',
    attributes: {'aria-label': 'Label of the selected object', list: 'class-names'},
    onkeydown: (event) => {
      if (event.key === 'Escape') event.target.value = object.label;
      if (event.key === 'Enter' || event.key === 'Escape') event.target.blur();
    },
    onchange: ({target}) => {
      const label = target.value.trim() || object.label;
      if (label !== object.label) setLabel(object.id, label);
    }});
}

const button = (act, content, title, onclick, disabled = false) => html('button', {type: 'button',
  title, onclick, disabled, children: [content],
  attributes: {'aria-label': title, 'data-act': act}});
const figure = (textContent, title) => html('span', {className: 'count', textContent, title});

function padlock(closed) {
  const icon = svg('svg', {viewBox: '0 0 16 16', width: 14, height: 14, 'aria-hidden': 'true',
    class: `padlock${closed ? ' closed' : ''}`});
  svg('rect', {x: 3, y: 7, width: 10, height: 7, rx: 1.5}, icon);
  svg('path', {d: closed ? 'M5 7V5a3 3 0 0 1 6 0v2' : 'M5 7V4a3 3 0 0 1 6 0'}, icon);
  return icon;
}

function scoreOf({score, agreement, edited}) {
  if (edited) return figure('✎', 'changed by hand: the score of the model is of another outline');
  const more = agreement === null ? '' : `; the answers agree to ${agreement.toFixed(2)}`;
  const made = figure(score === null ? '' : score.toFixed(2), `score${more}`);
  made.classList.add('score');
  return made;
}

export function connect() {
  $('undo').onclick = undo;
  $('redo').onclick = redo;
  $('others').onclick = hideOthers;
  for (const event of ['document', 'current', 'selection']) on(event, render);
  on('panel', () => bringIntoSight(rows.get(state.selected)?.row));
  render();
}

/* The list of the shown document's objects. */
import {$, html} from './dom.js';
import {countVertices, ringsOf} from './geometry.js';
import {canRedo, canUndo, commitObject, on, redo, select, shown, state, undo} from './store.js';
import {removeObject} from './tools.js';

function render() {
  const objects = shown()?.objects || [];
  $('objects').replaceChildren(...objects.map(row));
  $('undo').disabled = !canUndo();
  $('redo').disabled = !canRedo();
  $('export').disabled = !objects.length;
}

function row(object, index) {
  const swatch = html('span', {className: 'swatch'});
  swatch.style.setProperty('background', object.color);
  const name = object.id === state.selected ? nameField(object) : html('button', {type: 'button',
    textContent: object.label, title: object.label, onclick: () => select(object.id)});
  name.className = 'name';
  const called = `object ${index + 1}, ${object.label}`;
  return html('li', {attributes: {'data-object': object.id}, children: [
    rowButton(object.hidden ? '○' : '◉', `${object.hidden ? 'Show' : 'Hide'} ${called}`,
      () => commitObject(object.id, ({hidden}) => ({hidden: !hidden}))),
    swatch, name, scoreOf(object), figure(countVertices(ringsOf(object.polygons)), 'vertices'),
    rowButton('×', `Remove ${called}`, () => removeObject(object.id))]});
}

function nameField(object) {
  return html('input', {value: object.label, maxLength: 1000,
    attributes: {'aria-label': 'Label of the selected object'},
    onchange: ({target}) => {
      const label = target.value.trim() || object.label;
      if (label !== object.label) commitObject(object.id, () => ({label}));
    }});
}

const rowButton = (textContent, title, onclick) => html('button', {type: 'button', textContent,
  title, onclick, attributes: {'aria-label': title}});
const figure = (textContent, title) => html('span', {className: 'count', textContent, title});

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
  for (const event of ['document', 'current', 'selection']) on(event, render);
  render();
}

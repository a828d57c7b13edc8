/* The list of classes: names that were typed, and those that the shown document's objects have.
   The first nine have the keys 1 to 9. */
import {$, html, say} from './dom.js';
import {bind} from './keys.js';
import {commit, commitObject, on, selectedObject, setSettings, shown, state} from './store.js';

let renaming = null;  // name of the class that is being renamed
let drawn = '';  // what the list was drawn of

/** Names of the classes, in the order of their keys. */
export const names = () => [...new Set([...state.settings.classes,
  ...(shown()?.objects || []).map(({label}) => label)])];

/** Remember a name that was typed. */
function remember(name) {
  if (!state.settings.classes.includes(name)) {
    setSettings({classes: [...state.settings.classes, name]});
  }
}

/** Give an object a label that was typed or chosen. */
export function setLabel(id, label) {
  remember(label);
  commitObject(id, () => ({label}));
}

/** Give the selected object a class; where none is selected, what is drawn or clicked next. */
function choose(name) {
  const object = selectedObject();
  if (object) {
    if (object.label !== name) setLabel(object.id, name);
    say(`The selected object: ${name}.`);
    return;
  }
  const next = state.settings.next === name ? null : name;
  if (next) remember(next);
  setSettings({next});
  say(next ? `What is drawn or clicked next: ${next}.` : 'What is drawn next has no class.');
}

/** Rename a class for all objects of the shown document, as one step. */
function rename(name, to) {
  renaming = null;
  if (to && to !== name) {
    const objects = shown()?.objects || [], count = objects.filter(
      ({label}) => label === name).length;
    const known = state.settings.classes.includes(name) ? state.settings.classes
      : [...state.settings.classes, name];
    setSettings({classes: [...new Set(known.map((old) => (old === name ? to : old)))],
      next: state.settings.next === name ? to : state.settings.next});
    if (count) {
      commit(state.current, {objects: objects.map((object) => (object.label === name
        ? {...object, label: to} : object))});
    }
    say(`${name} is now ${to}: ${count} ${count === 1 ? 'object' : 'objects'} of this picture.`);
  }
  render();
}

function add(event) {
  event.preventDefault();
  const name = $('class-name').value.trim();
  if (!name) return;
  remember(name);
  $('class-name').value = '';
}

function forget(name) {
  setSettings({classes: state.settings.classes.filter((one) => one !== name),
    next: state.settings.next === name ? null : state.settings.next});
}

// --- the list -----------------------------------------------------------------------------------
function render() {
  const counts = new Map();
  for (const {label} of shown()?.objects || []) counts.set(label, (counts.get(label) || 0) + 1);
  const all = names();
  const now = JSON.stringify([all, [...counts], selectedObject()?.label, state.settings.next,
    renaming]);
  if (now === drawn || $('classes').querySelector('input')?.matches(':focus')) return;
  drawn = now;
  $('classes').replaceChildren(...all.map((name, index) => row(name, index,
    counts.get(name) || 0)));
  $('class-names').replaceChildren(...all.map((value) => html('option', {value})));
}

function row(name, index, count) {
  const label = selectedObject()?.label;
  const pressed = label === undefined ? state.settings.next === name : label === name;
  const key = index < 9 ? html('kbd', {textContent: index + 1}) : html('span', {className: 'kbd'});
  const middle = renaming === name ? html('input', {className: 'name', value: name,
    maxLength: 1000, attributes: {'aria-label': `New name of the class ${name}`},
    onkeydown: (event) => {
      if (event.key === 'Escape') event.target.value = name;
      if (event.key === 'Enter' || event.key === 'Escape') event.target.blur();
    },
    onblur: ({target}) => { if (renaming === name) rename(name, target.value.trim()); },
  }) : html('button', {type: 'button', className: 'name', textContent: name,
    title: `${name}: of the selected object, or of what is drawn next`,
    attributes: {'aria-pressed': pressed}, onclick: () => choose(name)});
  return html('li', {children: [key, middle,
    html('span', {className: 'count', textContent: count, title: 'objects of this picture'}),
    html('button', {type: 'button', textContent: '✎', title: `Rename ${name}`,
      attributes: {'aria-label': `Rename the class ${name}`}, onclick: () => {
        renaming = name;
        render();
        $('classes').querySelector('input').select();
      }}),
    html('button', {type: 'button', textContent: '×', disabled: count > 0,
      title: count ? 'objects have it' : `Take ${name} off the list`, onclick: () => forget(name),
      attributes: {'aria-label': `Take ${name} off the list`}})]});
}

export function connect() {
  $('new-class').onsubmit = add;
  for (const event of ['document', 'current', 'selection', 'settings']) on(event, render);
  bind('1 2 3 4 5 6 7 8 9', 'class of the selected object, or of what is drawn or clicked next',
    ({key, code}) => {
      const name = names()[Number(/\d/.exec(key) ? key : code.slice(-1)) - 1];
      if (name === undefined) return false;
      choose(name);
      return true;
    }, {shown: '1 to 9'});
  render();
}

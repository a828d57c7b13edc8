/* Keys of the page. Each is bound together with what the help says of it. */
import {$, html} from './dom.js';

const bound = new Map();  // key -> actions; the first that does not return false has it
const OTHERS = {'=': '+', _: '-', Backspace: 'Backspace', ' ': 'Space'};

/** Do `action(event)` at keys such as 'Ctrl+Shift+z', 'd' or 'Delete', several with a blank between.

    It returns false where it does not apply; an earlier binding goes first. `text` is for the help,
    '' for none; `typing`: also while a text is being typed. */
export function bind(keys, text, action, {typing = false, shown = keys} = {}) {
  for (const key of keys.split(' ')) bound.set(key, [...bound.get(key) || [], {action, typing}]);
  if (text) {
    const named = shown.split(' ').flatMap((key) => [html('kbd', {textContent: pretty(key)}), ' ']);
    $('keys').append(html('dt', {children: named}), html('dd', {textContent: text}));
  }
}

const pretty = (key) => key.replace(/(^|\+)([a-z])$/, (all, plus, letter) => plus
  + letter.toUpperCase());

/** Whether the user is writing a text into an element. */
export const isTyping = ({tagName, type, isContentEditable}) => isContentEditable
  || tagName === 'SELECT' || tagName === 'TEXTAREA'
  || (tagName === 'INPUT' && !['radio', 'checkbox', 'button', 'file'].includes(type));

/** The name of what was pressed; letters and digits by their place where the layout has others. */
function nameOf({key, code, ctrlKey, metaKey, altKey, shiftKey}) {
  let name = OTHERS[key] || key;
  if (name.length === 1) {
    name = name.toLowerCase();
    const placed = /^(?:Key|Digit)(.)$/.exec(code || '');
    if (placed && !/[a-z0-9+-]/.test(name)) name = placed[1].toLowerCase();
  }
  const withShift = shiftKey && (name.length > 1 || /[a-z]/.test(name));
  return `${ctrlKey || metaKey ? 'Ctrl+' : ''}${altKey ? 'Alt+' : ''}${withShift ? 'Shift+' : ''}`
    + name;
}

/** Keys that an element has a use of its own for. */
function isItsOwn({tagName, type}, name) {
  if (['BUTTON', 'SUMMARY', 'A'].includes(tagName)) return ['Enter', 'Space'].includes(name);
  if (type === 'checkbox') return name === 'Space';
  return type === 'radio' && name.startsWith('Arrow');
}

function pressed(event) {
  if (event.defaultPrevented || event.isComposing) return;
  const name = nameOf(event), typing = isTyping(event.target);
  if (isItsOwn(event.target, name)) return;
  for (const {action, typing: always} of bound.get(name) || []) {
    if (typing && !always) continue;
    if (action(event) === false) continue;
    event.preventDefault();
    return;
  }
}

export function connect() {
  addEventListener('keydown', pressed);
}

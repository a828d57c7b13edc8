/* Elements. Texts of users and of the model enter the document as text alone (textContent). */

export const $ = (id) => document.getElementById(id);
const SVG = 'http://www.w3.org/2000/svg';

export function svg(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (parent) parent.append(made);
  return made;
}

/** An HTML element with properties, and `attributes` and `children` among them. */
export function html(name, {attributes = {}, children = [], ...properties} = {}) {
  const made = Object.assign(document.createElement(name), properties);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Tell the user; `kind` is '', 'busy' or 'bad'. */
export function say(text, kind = '') {
  $('status').textContent = text;
  $('status').className = kind;
}

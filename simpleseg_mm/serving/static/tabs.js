/* On a narrow screen the panels are tabs below the picture: one of them is seen at a time. */
import {$, html} from './dom.js';
import {emit} from './store.js';

const PANELS = () => [...document.querySelectorAll('aside > [data-panel]')];

/** Bring a panel to the front; on a wide screen all are seen. */
export function open(name) {
  for (const panel of PANELS()) panel.classList.toggle('front', panel.dataset.panel === name);
  for (const button of $('tabs').children) {
    button.setAttribute('aria-pressed', button.textContent === name);
  }
  emit('panel', name);
}

export function connect() {
  const names = [...new Set(PANELS().map(({dataset}) => dataset.panel))];
  $('tabs').replaceChildren(...names.map((name) => html('button', {type: 'button',
    textContent: name, onclick: () => {
      open(name);
      for (const panel of PANELS()) if (panel.tagName === 'DETAILS') panel.open ||= name === 'Help';
    }})));
  open(names[0]);
}

/* Where a picture was changed in two places both are kept, and the user chooses. */
import {$, say} from './dom.js';
import * as folder from './folder.js';
import * as keeping from './keeping.js';
import {on, shown, state} from './store.js';

function render() {
  const document = shown(), conflict = document?.conflict;
  $('choice').hidden = !conflict;
  if (!conflict) return;
  const {from, theirs} = conflict, many = theirs ? `${theirs.objects.length} objects` : 'something';
  $('choice-text').textContent = `${document.name} was changed `
    + `${from === 'tab' ? 'in another tab, too' : 'by another program meanwhile'}: ${many} there, `
    + `${document.objects.length} here. Both are kept until you choose; the other one stays in `
    + 'Undo.';
}

async function choose(mine) {
  const key = state.current, {from} = shown().conflict;
  try {
    await (from === 'tab' ? keeping : folder).choose(key, mine);
    say(mine ? 'Yours is kept.' : 'The other one is taken; Undo brings yours back.');
  } catch (error) {
    say(error.message, 'bad');
  }
  render();
}

export function connect() {
  $('keep-mine').onclick = () => choose(true);
  $('take-theirs').onclick = () => choose(false);
  for (const event of ['conflict', 'current', 'document', 'list']) on(event, render);
}

/* One question, or a list of classes, about many pictures. A picture gets its answers together,
   when all are there; they are to be reviewed. What is left to do is kept: a batch goes on after a
   reload, and where the server goes away it waits. */
import * as api from './api.js';
import {events, objectsOf, taught} from './asking.js';
import * as database from './database.js';
import {$, html, say} from './dom.js';
import {filters, review} from './list.js';
import {ready} from './pictures.js';
import {commit, emit, on, state} from './store.js';

const LANES = 4;    // pictures at a time: a browser keeps six connections to a server
const SHOWN = 100;  // errors in the list
const AWAY = [0, 502, 504];
const BUSY = [429, 503];

/* {labels, all, consensus, todo: [keys], total, asked, found, same, errors: [[key, text]], notes};
   null where there is none */
let batch = null;
let running = null;  // {control, began, asked: before, waits: why it waits} while one runs
let keeping = 0;

/** Names of classes: one a line; where there is one line, with commas between. */
export function labelsOf(text) {
  const lines = text.split('\n').map((line) => line.trim()).filter(Boolean);
  const parts = lines.length === 1 ? lines[0].split(',') : lines;
  return [...new Set(parts.map((part) => part.trim()).filter(Boolean))];
}

// --- asking -------------------------------------------------------------------------------------
async function answerOf(key, label, signal) {
  const body = {prompt: batch.all ? {text: label, all: true} : {text: label}};
  if (batch.consensus) body.consensus = batch.consensus;
  for await (const event of events(key, body, signal)) {
    if (event.event === 'done') return event.result;
    if (event.event === 'error') throw new api.ServerError(event.message, 500);
  }
  throw new api.ServerError('The server ended without an answer.', 0);
}

/** Do `work()` until the server is there and has time. */
async function patiently(work) {
  const {signal} = running.control;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      signal.throwIfAborted();
      if (AWAY.includes(error.status)) {
        waits('The server does not answer. The batch waits, and goes on by itself.');
        await api.untilBack(() => {}, signal);
      } else if (BUSY.includes(error.status)) {
        waits(`The server is busy; the batch waits ${error.after} s.`);
        await api.sleep(error.after * 1000, signal);
      } else {
        throw error;
      }
      waits('');
    }
  }
}

async function askPicture(key) {
  const {signal} = running.control;
  const known = await patiently(() => ready(key));
  const found = [], doubts = [];
  for (const label of batch.labels) {
    const result = await patiently(() => answerOf(known, label, signal));
    const others = [...state.documents.get(known)?.objects || [], ...found];
    const objects = objectsOf(others, result, result.label === 'object' ? label : result.label);
    found.push(...objects);
    doubts.push(...result.warnings.map((text) => `${label}: ${text}`));
    if (!objects.length && !result.says_nothing) {
      doubts.push(`${label}: no outline came of it; the model wrote: ${result.text.slice(0, 120)}`);
    }
  }
  signal.throwIfAborted();
  const document = state.documents.get(known);
  if (!document) return;
  const there = new Set(document.objects.map(markOf));
  const fresh = found.filter((object) => !there.has(markOf(object)));
  batch.same += found.length - fresh.length;
  batch.found += fresh.length;
  if (fresh.length || !document.done) {
    commit(known, {objects: [...document.objects, ...fresh], review: true, done: false});
  }
  if (doubts.length) batch.notes.push([known, doubts.join('; ')]);
}

/** What is the same for one answer that came twice. */
const markOf = ({label, origin}) => JSON.stringify([label, origin]);

async function lane(queue) {
  for (let key = queue.shift(); key !== undefined; key = queue.shift()) {
    try {
      if (state.documents.has(key)) await askPicture(key);
    } catch (error) {
      running.control.signal.throwIfAborted();
      batch.errors.push([key, error.message]);
    }
    batch.todo = batch.todo.filter((other) => other !== key && other !== renamed.get(key));
    batch.asked += 1;
    running.asked += 1;
    keepSoon();
    render();
  }
}

const renamed = new Map();  // key before -> after a picture was read

async function run() {
  const control = new AbortController();
  running = {control, began: performance.now(), asked: 0, waits: ''};
  const queue = [...batch.todo];
  render();
  await Promise.allSettled(Array.from({length: LANES}, () => lane(queue)));
  const stopped = control.signal.aborted;
  running = null;
  await keep();
  render();
  if (!stopped) say(summary(), batch.errors.length ? 'bad' : '');
}

// --- beginning, stopping ------------------------------------------------------------------------
function begin() {
  const labels = labelsOf($('batch-labels').value);
  if (!labels.length) {
    say('Say what to outline: a class a line.', 'bad');
    return;
  }
  const chosen = [...state.documents.values()].filter(
    (document) => filters($('batch-which').value, document));
  if (!chosen.length) {
    say('There is no such picture in the list.', 'bad');
    return;
  }
  batch = {labels, all: $('batch-all').checked, consensus: Number($('consensus').value) || 0,
    todo: chosen.map(({key}) => key), total: chosen.length, asked: 0, found: 0, same: 0, errors: [],
    notes: []};
  run();
}

/** Go on with what is left; after the end, with what failed. */
function goOn() {
  if (!batch.todo.length) {
    batch.todo = batch.errors.map(([key]) => renamed.get(key) || key);
    batch.asked -= batch.errors.length;
    batch.errors = [];
  }
  run();
}

function forget() {
  batch = null;
  keep();
  render();
}

// --- keeping ------------------------------------------------------------------------------------
function keep() {
  clearTimeout(keeping);
  keeping = 0;
  return (batch ? database.put('about', {key: 'batch', value: batch})
    : database.remove('about', 'batch')).catch(() => {});
}

function keepSoon() {
  keeping ||= setTimeout(keep, 1000);
}

export async function start() {
  batch ??= (await database.get('about', 'batch').catch(() => null))?.value ?? null;
  render();
}

// --- what is said -------------------------------------------------------------------------------
function waits(text) {
  if (running) running.waits = text;
  render();
}

const counted = (count, one, many) => `${count} ${count === 1 ? one : many}`;

function summary() {
  const {asked, total, found, same, errors, notes} = batch;
  return [`${asked} of ${counted(total, 'picture', 'pictures')} asked: `
    + `${counted(found, 'object', 'objects')}.`,
  ...same ? [`${same} that were there already are not added again.`] : [],
  ...errors.length ? [`${counted(errors.length, 'picture', 'pictures')} failed.`] : [],
  ...notes.length ? [`${counted(notes.length, 'answer is', 'answers are')} in doubt.`] : []]
    .join(' ');
}

function timeLeft() {
  if (!running.asked) return '';
  const seconds = (performance.now() - running.began) / running.asked * batch.todo.length / 1000;
  return seconds < 90 ? ` About ${Math.ceil(seconds)} s left.`
    : ` About ${Math.ceil(seconds / 60)} min left.`;
}

function render() {
  const open = Boolean(running);
  $('batch-go').hidden = open;
  $('batch-go').disabled = !state.documents.size || !(taught('text') || taught('all'));
  $('batch-stop').hidden = !open;
  $('batch-state').hidden = !batch;
  $('batch-bar').hidden = !open;
  if (!batch) return;
  Object.assign($('batch-bar'), {max: batch.total, value: batch.asked});
  $('batch-text').textContent = summary() + (open ? timeLeft() : '')
    + (running?.waits ? ` ${running.waits}` : '');
  $('batch-on').hidden = open || !(batch.todo.length || batch.errors.length);
  $('batch-on').textContent = batch.todo.length ? 'Go on' : 'Try what failed again';
  $('batch-forget').hidden = open;
  $('batch-review').hidden = !batch.asked;
  const lines = [...batch.errors, ...batch.notes];
  $('batch-errors').replaceChildren(...lines.slice(0, SHOWN).map(([key, text]) => html('li',
    {textContent: `${state.documents.get(renamed.get(key) || key)?.name ?? 'a picture that is not '
      + 'in the list any more'}: ${text}`})),
  ...lines.length > SHOWN ? [html('li', {textContent: `and ${lines.length - SHOWN} more`})] : []);
}

export function connect() {
  $('batch').onsubmit = (event) => { event.preventDefault(); begin(); };
  $('batch-stop').onclick = () => running?.control.abort();
  $('batch-on').onclick = goOn;
  $('batch-forget').onclick = forget;
  $('batch-review').onclick = review;
  on('info', () => {
    if (!taught('all') || !taught('text')) {
      Object.assign($('batch-all'), {checked: taught('all'), disabled: true});
    }
    render();
  });
  on('list', render);
  on('renamed', ([from, to]) => {
    renamed.set(from, to);
    if (batch) batch.todo = batch.todo.map((key) => (key === from ? to : key));
  });
  addEventListener('beforeunload', (event) => { if (running) event.preventDefault(); });
}

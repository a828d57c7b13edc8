/* Questions to the model, and what comes of them. A question belongs to its document: it goes on
   while another one is shown. */
import * as api from './api.js';
import {$, say} from './dom.js';
import {countVertices, ringsOf} from './geometry.js';
import {serverId} from './pictures.js';
import {commit, emit, makeObject, on, state} from './store.js';
import {unpacked} from './wire.js';

export const ASKED = {text: 'one object by words', point: 'points', box: 'boxes',
  all: 'all objects at once', everything: 'everything with names'};
const COLORS = ['#e6194b', '#0a84ff', '#2aa84a', '#f58231', '#911eb4', '#008080', '#c79a00'];

/** Whether the model was taught a kind of question. */
export const taught = (kind) => !state.info || state.info.asked.includes(kind);

/** Ask one prompt about a document; `label` is what is asked for, in words. Another question about
    it is stopped. The answer becomes objects, or is given to `use(polygons)`, whose promise gives
    what to tell the user. */
export async function ask(key, prompt, label, use = null) {
  state.running.get(key)?.control.abort();
  const running = {control: new AbortController(), draft: [], asking: prompt, use};
  state.running.set(key, running);
  emit('running', key);
  tell(key, `Looking for ${label} …`, 'busy');
  try {
    const body = {prompt};
    if ($('consensus').value) body.consensus = Number($('consensus').value);
    await asked(key, body, running, label);
  } catch (error) {
    if (error.name === 'AbortError') tell(key, 'Stopped.');
    else tell(key, error.message, 'bad');
  } finally {
    if (state.running.get(key) === running) {
      state.running.delete(key);
      emit('running', key);
    }
  }
}

/** The events of one question; a picture that the server has forgotten is sent again, once. */
export async function* events(key, body, signal) {
  for (let again = false; ; again = true) {
    try {
      yield* api.segment({...body, picture: await serverId(key, again)}, signal);
      return;
    } catch (error) {
      if (again || error.status !== 404) throw error;
    }
  }
}

async function asked(key, body, running, label) {
  for await (const event of events(key, body, running.control.signal)) {
    if (running.control.signal.aborted) return;
    await take(key, event, running, label);
  }
}

async function take(key, event, running, label) {
  if (event.event === 'queued' && event.waiting > 1) {
    tell(key, `${event.waiting} requests are waiting …`, 'busy');
  } else if (event.event === 'started') {
    running.draft = [];
    tell(key, `Looking for ${label} …`, 'busy');
  } else if (event.event === 'outline') {
    running.draft[event.instance] = event.rings;
    const objects = running.draft.length > 1 ? `${running.draft.length} objects, ` : '';
    tell(key, `${label}: ${objects}${counted(running.draft.flat())} …`, 'busy');
    emit('running', key);
  } else if (event.event === 'done') {
    await finish(key, event.result, label, running);
  } else if (event.event === 'error') {
    throw new api.ServerError(event.message, 500);
  }
}

async function finish(key, result, label, {use}) {
  const found = objectsOf(state.documents.get(key).objects, result,
    result.label === 'object' ? label : result.label);
  const doubt = result.warnings.map((text) => ` Warning: ${text}.`).join('');
  if (!found.length) {
    tell(key, (result.says_nothing ? `None found: the model sees no ${label}.`
      : `No outline came of ${label}; the model wrote: ${result.text.slice(0, 120)}`)
      + doubt, 'bad');
    return;
  }
  if (use) {
    tell(key, (await use(found.flatMap(({polygons}) => polygons))) + doubt, doubt ? 'bad' : '');
    return;
  }
  commit(key, {objects: [...state.documents.get(key).objects, ...found], selected: found[0].id});
  const objects = result.prompt.all || result.prompt.everything
    ? `${found.length} ${found.length === 1 ? 'object' : 'objects'}, ` : '';
  const several = result.answers > 1 ? ` of ${result.answers} answers` : '';
  const sure = result.confidence === null ? ''
    : `, confidence ${result.confidence.toFixed(2)}${several}`;
  tell(key, `${label}: ${objects}${counted(found.flatMap(({polygons}) => ringsOf(polygons)))} in `
    + `${result.seconds.toFixed(1)} s${sure}.${doubt}`, doubt ? 'bad' : undefined);
}

/** The objects of an answer, in colours that `others` have not: one, or where several were asked
    for one an instance. */
export function objectsOf(others, result, label) {
  const found = new Map(), names = new Map();
  for (const {instance = 0, name, ...polygon} of result.polygons) {
    names.set(instance, name ?? label);  // of everything each has its own
    found.set(instance, [...found.get(instance) || [], unpacked(polygon)]);
  }
  const taken = new Set(others.map(({color}) => color));
  const {text, point, box, all, everything} = result.prompt;
  const clicks = point || box ? 1 : 0;
  const prompt = JSON.parse(JSON.stringify({text, point, box, all, everything}));
  return [...found].map(([instance, polygons]) => {
    const score = result.confidence === null ? null : result.scores[instance] ?? null;
    const object = makeObject({polygons, score, color: freshColor(taken),
      label: clicks ? state.settings.next || 'object' : names.get(instance),
      actions: {clicks, moved: 0, added: 0, removed: 0, drawn: 0},
      agreement: result.agreements?.[instance] ?? null,
      origin: {prompt, polygons, score, model: state.info?.model ?? null}});
    taken.add(object.color);
    return object;
  });
}

/** A colour that no object has: of the list, and then hues that lie far apart. */
export function freshColor(taken) {
  for (let k = 0; ; k += 1) {
    const color = COLORS[k] || `hsl(${(k * 137.508 % 360).toFixed(1)} 75% 40%)`;
    if (!taken.has(color)) return color;
  }
}

const counted = (rings) => `${countVertices(rings)} `
  + `${countVertices(rings) === 1 ? 'vertex' : 'vertices'}`;

function tell(key, text, kind) {
  if (key === state.current) say(text, kind);
}

// --- the form -----------------------------------------------------------------------------------
function askWords(event) {
  event.preventDefault();
  const text = $('expression').value.trim();
  if (text) ask(state.current, $('all').checked ? {text, all: true} : {text}, text);
  else say('Say in words what to outline.', 'bad');
}

const CONTROLS = {point: ['point', 'add', 'cut'], box: ['box'], all: ['all']};

/** What the model was not taught is off, and said. */
function limit() {
  const missing = Object.keys(ASKED).filter((kind) => !taught(kind));
  for (const kind of missing) {
    if (kind === 'text') Object.assign($('all'), {checked: taught('all'), disabled: true});
    for (const value of CONTROLS[kind] || []) {
      const control = document.querySelector(`input[value=${value}]`);
      control.disabled = true;
      control.parentElement.title = `Off: this model was not taught ${ASKED[kind]}`;
    }
  }
  $('untaught').hidden = !missing.length;
  const pointer = missing.some((kind) => kind === 'point' || kind === 'box');
  $('untaught').textContent = 'Off, since this model was not taught it: '
    + `${missing.map((kind) => ASKED[kind]).join(', ')}.`
    + (pointer ? ' The packaged model knows points and boxes, of generated scenes: simpleseg '
      + 'serve, without --weights and --model.' : '');
}

/** How many samples may be voted; no choice where the server votes none. */
function offerConsensus({consensus, max_consensus: most}) {
  $('vote').hidden = !most;
  const counts = [0, 4, 8, 16, 32, consensus, most].filter((count) => count <= most);
  if (most) $('consensus').replaceChildren(...[...new Set(counts)].sort((a, b) => a - b).map(
    (count) => new Option(count ? `Vote of ${count + 1} answers` : 'One answer', count, false,
      count === consensus)));
}

function render() {
  const ready = state.current !== null;
  $('tools').disabled = $('how').disabled = $('ask-numbers').disabled = !ready;
  $('everything').disabled = !taught('everything');
  $('expression').disabled = $('go').disabled = !ready || !(taught('text') || taught('all'));
  $('stop').hidden = !state.running.has(state.current);
}

export function connect() {
  $('ask').onsubmit = askWords;
  $('everything').onclick = () => ask(state.current, {everything: true}, 'everything');
  $('stop').onclick = () => state.running.get(state.current)?.control.abort();
  for (const event of ['current', 'running']) on(event, render);
  on('info', () => { limit(); offerConsensus(state.info); render(); });
  render();
}

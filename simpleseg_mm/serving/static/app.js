'use strict';
/* The page: state in one object, one render function, history as snapshots.
   Texts of users and of the model enter the document as text alone (textContent). */

const $ = (id) => document.getElementById(id);
const SVG = 'http://www.w3.org/2000/svg';
const COLORS = ['#e6194b', '#0a84ff', '#2aa84a', '#f58231', '#911eb4', '#008080', '#c79a00'];

const ASKED = {text: 'one object by words', point: 'points', box: 'boxes',
  all: 'all objects at once'};

const state = {
  picture: null,      // {picture, name, width, height}
  // {label, color, polygons: [{outer: ring, holes: [ring]}], score, agreement, edited, hidden}; a
  // ring is a list of [x, y], and of a vote [x, y, spread]: pixels within which half of the
  // answers pass the vertex, and 90 %. What is edited loses its score, a moved vertex its spread.
  objects: [],
  selected: -1,
  draft: null,        // rings of the instances that are being written
  asking: null,       // the point or box that is being asked about
  running: null,      // AbortController
  maxMb: Infinity,    // of an upload
  asked: Object.keys(ASKED),  // what the model was taught
};
const past = [], future = [];

// --- history ------------------------------------------------------------------------------------
const snapshot = () => JSON.stringify({objects: state.objects, selected: state.selected});

function remember(before) {
  if (before === snapshot()) return;
  past.push(before);
  if (past.length > 200) past.shift();
  future.length = 0;
}

function change(action) {
  const before = snapshot();
  action();
  remember(before);
  render();
}

function travel(from, to) {
  if (!from.length) return;
  to.push(snapshot());
  Object.assign(state, JSON.parse(from.pop()));
  render();
}
const undo = () => travel(past, future);
const redo = () => travel(future, past);

// --- talking to the server ----------------------------------------------------------------------
function say(text, kind = '') {
  $('status').textContent = text;
  $('status').className = kind;
}

async function failure(answer) {
  try {
    return (await answer.json()).error;
  } catch {
    return `the server answered ${answer.status}`;
  }
}

async function open(file) {
  if (!file) return;
  if (file.size > state.maxMb * 1e6) {
    say(`${file.name} has more than ${state.maxMb} MB; make it smaller.`, 'bad');
    return;
  }
  stop();
  say(`Opening ${file.name || 'the picture'} …`, 'busy');
  try {
    const answer = await fetch(`/api/pictures?name=${encodeURIComponent(file.name || '')}`,
      {method: 'POST', body: file, headers: {'content-type': 'application/octet-stream'}});
    if (!answer.ok) throw new Error(await failure(answer));
    const picture = await answer.json();
    const image = $('picture');
    image.src = `/api/pictures/${picture.picture}`;
    await image.decode();
    Object.assign(state, {picture, objects: [], selected: -1, draft: null, asking: null});
    past.length = future.length = 0;
    say(`${picture.name}: ${picture.width} × ${picture.height} pixels. Say what to outline.`);
    render();
    fit();
    $('expression').focus();
  } catch (error) {
    say(error.message, 'bad');
  }
}

async function ask(prompt, label) {
  if (!state.picture) return;
  stop();
  const control = state.running = new AbortController();
  state.draft = [];
  say(`Looking for ${label} …`, 'busy');
  render();
  try {
    const body = {picture: state.picture.picture, prompt, stream: true};
    if ($('consensus').value) body.consensus = Number($('consensus').value);
    const answer = await fetch('/api/segment', {
      method: 'POST', signal: control.signal, headers: {'content-type': 'application/json'},
      body: JSON.stringify(body)});
    if (!answer.ok) throw new Error(await failure(answer));
    for await (const event of lines(answer.body)) {
      if (control.signal.aborted) return;
      take(event, label);
    }
  } catch (error) {
    if (error.name === 'AbortError') say('Stopped.');
    else say(error.message, 'bad');
  } finally {
    if (state.running === control) {
      Object.assign(state, {running: null, draft: null, asking: null});
      render();
    }
  }
}

function take(event, label) {
  if (event.event === 'queued' && event.waiting > 1) {
    say(`${event.waiting} requests are waiting …`, 'busy');
  } else if (event.event === 'started') {
    state.draft = [];
    say(`Looking for ${label} …`, 'busy');
  } else if (event.event === 'outline') {
    state.draft[event.instance] = event.rings;
    const objects = state.draft.length > 1 ? `${state.draft.length} objects, ` : '';
    say(`${label}: ${objects}${counted(state.draft.flat())} …`, 'busy');
    renderSoon();
  } else if (event.event === 'done') {
    finish(event.result, label);
  } else if (event.event === 'error') {
    throw new Error(event.message);
  }
}

function finish(result, label) {
  const found = objectsOf(result, result.label === 'object' ? label : result.label);
  const doubt = result.warnings.map((text) => ` Warning: ${text}.`).join('');
  if (!found.length) {
    say((result.says_nothing ? `None found: the model sees no ${label}.`
      : `No outline came of ${label}; the model wrote: ${result.text.slice(0, 120)}`)
      + doubt, 'bad');
    return;
  }
  change(() => {
    state.selected = state.objects.length;
    for (const object of found) state.objects.push({...object, color: freshColor()});
  });
  const objects = result.prompt.all
    ? `${found.length} ${found.length === 1 ? 'object' : 'objects'}, ` : '';
  const several = result.answers > 1 ? ` of ${result.answers} answers` : '';
  const sure = result.confidence === null ? ''
    : `, confidence ${result.confidence.toFixed(2)}${several}`;
  say(`${label}: ${objects}${counted(found.flatMap(ringsOf))} in ${result.seconds.toFixed(1)} s`
    + `${sure}.${doubt}`, doubt ? 'bad' : undefined);
}

/** The objects of an answer: one, or where all were asked for one an instance. */
function objectsOf(result, label) {
  const found = new Map();
  for (const {outer, holes, spread = [], instance = 0} of result.polygons) {
    const [first, ...rest] = [outer, ...holes].map((ring, k) => ring.map(
      ([x, y], i) => (spread[k] ? [x, y, spread[k][i]] : [x, y])));
    found.set(instance, [...found.get(instance) || [], {outer: first, holes: rest}]);
  }
  return [...found].map(([instance, polygons]) => ({label, polygons,
    score: result.confidence === null ? null : result.scores[instance] ?? null,
    agreement: result.agreements?.[instance] ?? null}));
}

/** A colour that no object has: of the list, and then hues that lie far apart. */
function freshColor() {
  const taken = new Set(state.objects.map((object) => object.color));
  for (let k = 0; ; k += 1) {
    const color = COLORS[k] || `hsl(${(k * 137.508 % 360).toFixed(1)} 75% 40%)`;
    if (!taken.has(color)) return color;
  }
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const parts = (rest + value).split('\n');
    rest = parts.pop();
    for (const part of parts) if (part) yield JSON.parse(part);
  }
}

function stop() {
  if (state.running) state.running.abort();
}

async function download() {
  try {
    const answer = await fetch('/api/export', {
      method: 'POST', headers: {'content-type': 'application/json'},
      body: JSON.stringify({picture: state.picture.picture, format: $('format').value,
        objects: state.objects.map(forExport)})});
    if (!answer.ok) throw new Error(await failure(answer));
    const name = decodeURIComponent(
      answer.headers.get('content-disposition').split("UTF-8''")[1]);
    const link = document.createElement('a');
    link.href = URL.createObjectURL(await answer.blob());
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    const notes = JSON.parse(decodeURIComponent(answer.headers.get('x-notes') || '[]'));
    say(`Exported ${name}. ${notes.map((note) => `${note}.`).join(' ')}`,
      notes.length ? 'bad' : undefined);
  } catch (error) {
    say(error.message, 'bad');
  }
}

/** An object as the API takes it: with its score, and how sure its vertices are. */
function forExport({label, score, agreement, polygons}) {
  const places = (ring) => ring.map(([x, y]) => [x, y]);
  return {label, score, agreement, polygons: polygons.map(({outer, holes}) => {
    const spread = [outer, ...holes].map((ring) => ring.map((point) => point[2] || null));
    return {outer: places(outer), holes: holes.map(places),
      spread: spread.flat().some(Boolean) ? spread : null};
  })};
}

// --- drawing ------------------------------------------------------------------------------------
function element(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (parent) parent.append(made);
  return made;
}

const path = (rings, close) => rings.filter((ring) => ring.length)
  .map((ring) => 'M' + ring.map(([x, y]) => `${x} ${y}`).join('L') + (close ? 'Z' : ''))
  .join('');
const ringsOf = (object) => object.polygons.flatMap((one) => [one.outer, ...one.holes]);
const vertices = (rings) => rings.reduce((sum, ring) => sum + ring.length, 0);
const counted = (rings) => `${vertices(rings)} ${vertices(rings) === 1 ? 'vertex' : 'vertices'}`;
const unit = () => state.picture.width / ($('overlay').clientWidth || state.picture.width);

function render() {
  const ready = Boolean(state.picture);
  $('empty').hidden = ready;
  $('canvas').hidden = !ready;
  $('tools').disabled = $('how').disabled = !ready;
  $('expression').disabled = $('go').disabled = !ready
    || !(state.asked.includes('text') || state.asked.includes('all'));
  $('other').disabled = !ready;
  $('undo').disabled = !past.length;
  $('redo').disabled = !future.length;
  $('export').disabled = !state.objects.length;
  $('stop').hidden = !state.running;
  renderObjects();
  if (ready) renderOverlay();
}

function nameField(object) {
  const field = document.createElement('input');
  Object.assign(field, {value: object.label, maxLength: 1000, onchange: () => change(() => {
    object.label = field.value.trim() || object.label;
  })});
  field.setAttribute('aria-label', 'Label of the selected object');
  return field;
}

function nameButton(object, index) {
  const button = document.createElement('button');
  return Object.assign(button, {type: 'button', textContent: object.label, title: object.label,
    onclick: () => { state.selected = index; render(); }});
}

function renderObjects() {
  $('objects').replaceChildren(...state.objects.map((object, index) => {
    const row = document.createElement('li');
    const swatch = document.createElement('span');
    swatch.className = 'swatch';
    swatch.style.setProperty('background', object.color);
    const name = index === state.selected ? nameField(object) : nameButton(object, index);
    name.className = 'name';
    const show = rowButton(object.hidden ? '○' : '◉',
      `${object.hidden ? 'Show' : 'Hide'} object ${index + 1}, ${object.label}`,
      () => { object.hidden = !object.hidden; });
    const remove = rowButton('×', `Remove object ${index + 1}, ${object.label}`, () => {
      state.objects.splice(index, 1);
      state.selected = Math.min(state.selected, state.objects.length - 1);
    });
    row.append(show, swatch, name, scoreOf(object), figure(vertices(ringsOf(object)), 'vertices'),
      remove);
    return row;
  }));
}

function rowButton(text, title, action) {
  const button = document.createElement('button');
  Object.assign(button, {type: 'button', textContent: text, title,
    onclick: () => change(action)});
  button.setAttribute('aria-label', title);
  return button;
}

function figure(text, title) {
  return Object.assign(document.createElement('span'), {className: 'count', textContent: text,
    title});
}

function scoreOf({score, agreement, edited}) {
  if (edited) return figure('✎', 'changed by hand: the score of the model is of another outline');
  const more = agreement === null ? '' : `; the answers agree to ${agreement.toFixed(2)}`;
  const made = figure(score === null ? '' : score.toFixed(2), `score${more}`);
  made.classList.add('score');
  return made;
}

function renderOverlay() {
  const overlay = $('overlay');
  const held = document.activeElement && document.activeElement.dataset
    ? document.activeElement.dataset.place : null;
  overlay.setAttribute('viewBox', `0 0 ${state.picture.width} ${state.picture.height}`);
  overlay.replaceChildren();
  state.objects.forEach((object, index) => {
    if (object.hidden) return;
    const shape = element('path', {class: `shape${index === state.selected ? ' selected' : ''}`,
      d: path(ringsOf(object), true), fill: object.color, stroke: object.color,
      'fill-rule': 'evenodd'}, overlay);
    shape.dataset.object = index;
    shape.append(Object.assign(document.createElementNS(SVG, 'title'),
      {textContent: object.label}));
  });
  const chosen = state.objects[state.selected];
  if (chosen && !chosen.hidden && !state.draft) renderVertices(overlay);
  if (state.asking) renderAsking(overlay);
  if (state.draft) renderDraft(overlay);
  if (held) {
    const again = overlay.querySelector(`[data-place="${held}"]`);
    if (again) again.focus();
  }
}

let soon = 0;

function renderSoon() {  // outlines grow faster than pictures are shown
  soon ||= requestAnimationFrame(() => { soon = 0; renderOverlay(); });
}

function renderVertices(overlay) {
  const object = state.objects[state.selected], size = unit();
  const total = vertices(ringsOf(object));
  let number = 0;
  ringsOf(object).forEach((ring, ringIndex) => {
    for (const [x, y, spread] of ring) {
      if (spread) element('circle', {class: 'spread', cx: x, cy: y, r: spread[1],
        'aria-hidden': 'true'}, overlay);
    }
    ring.forEach(([x, y], index) => {
      const [nx, ny] = ring[(index + 1) % ring.length];
      const middle = element('circle', {class: 'middle', cx: (x + nx) / 2, cy: (y + ny) / 2,
        r: 3.5 * size, stroke: object.color, 'aria-hidden': 'true'}, overlay);
      middle.dataset.after = `${ringIndex},${index}`;
    });
    ring.forEach(([x, y], index) => {
      number += 1;
      const vertex = element('circle', {class: 'vertex', cx: x, cy: y, r: 6 * size,
        fill: object.color, tabindex: 0, role: 'button',
        'aria-label': `Vertex ${number} of ${total} at ${x.toFixed(0)}, ${y.toFixed(0)}`},
      overlay);
      vertex.dataset.place = `${ringIndex},${index}`;
    });
  });
}

function renderDraft(overlay) {
  const written = state.draft.slice(0, -1).flat(), growing = state.draft.at(-1) || [];
  element('path', {class: 'draft', d: path(written, true) + path(growing, false)}, overlay);
  for (const [x, y] of growing.flat()) {
    element('circle', {class: 'draft-dot', cx: x, cy: y, r: 4 * unit()}, overlay);
  }
}

function renderAsking(overlay) {
  const {point, box} = state.asking;
  if (point) element('circle', {class: 'asking', cx: point[0], cy: point[1], r: 8 * unit()},
    overlay);
  if (box) element('rect', {class: 'asking', x: Math.min(box[0], box[2]),
    y: Math.min(box[1], box[3]), width: Math.abs(box[2] - box[0]),
    height: Math.abs(box[3] - box[1])}, overlay);
}

function fit() {
  if (!state.picture) return;
  const stage = $('stage'), {width, height} = state.picture;
  const scale = Math.min((stage.clientWidth - 20) / width, (stage.clientHeight - 20) / height);
  $('canvas').style.setProperty('width', `${Math.round(width * scale)}px`);
  $('canvas').style.setProperty('height', `${Math.round(height * scale)}px`);
  renderOverlay();
}

// --- editing ------------------------------------------------------------------------------------
const clamp = (value, high) => Math.min(Math.max(value, 0), high);
const rounded = (value) => Math.round(value * 100) / 100;

function position(event) {
  const frame = $('overlay').getBoundingClientRect(), {width, height} = state.picture;
  return [rounded(clamp((event.clientX - frame.left) / frame.width * width, width)),
    rounded(clamp((event.clientY - frame.top) / frame.height * height, height))];
}

/** The selected object, which is about to be changed by hand. */
function touched() {
  return Object.assign(state.objects[state.selected],
    {score: null, agreement: null, edited: true});
}

const place = (text) => text.split(',').map(Number);
const tool = () => document.querySelector('input[name=tool]:checked').value;

function removeVertex([ringIndex, index]) {
  change(() => {
    const object = touched(), ring = ringsOf(object)[ringIndex];
    if (ring.length > 3) {
      ring.splice(index, 1);
      return;
    }
    for (const polygon of object.polygons) {  // two points are no ring
      polygon.holes = polygon.holes.filter((hole) => hole !== ring);
    }
    object.polygons = object.polygons.filter((polygon) => polygon.outer !== ring);
    if (!object.polygons.length) {
      state.objects.splice(state.selected, 1);
      state.selected = state.objects.length - 1;
    }
  });
}

function insertVertex([ringIndex, index], point) {
  const ring = ringsOf(touched())[ringIndex];
  const next = ring[(index + 1) % ring.length];
  ring.splice(index + 1, 0, point
    || [rounded((ring[index][0] + next[0]) / 2), rounded((ring[index][1] + next[1]) / 2)]);
  return [ringIndex, index + 1];
}

function drag(event, started) {
  const {pointerId} = event, canvas = $('canvas');
  canvas.setPointerCapture(pointerId);
  const move = (moved) => started.move(position(moved));
  const end = (ended) => {
    canvas.removeEventListener('pointermove', move);
    canvas.removeEventListener('pointerup', end);
    canvas.removeEventListener('pointercancel', end);
    started.end(position(ended));
  };
  canvas.addEventListener('pointermove', move);
  canvas.addEventListener('pointerup', end);
  canvas.addEventListener('pointercancel', end);
}

function dragVertex(event, where) {
  const before = snapshot();
  let [ringIndex, index] = where.place;
  if (where.isNew) [ringIndex, index] = insertVertex(where.place, position(event));
  const set = (point) => {
    ringsOf(touched())[ringIndex][index] = point;
    renderOverlay();
  };
  let moved = Boolean(where.isNew);
  drag(event, {
    move: (point) => { moved = true; set(point); },
    end: (point) => {
      if (moved) set(point);
      remember(before);
      render();
      const held = $('overlay').querySelector(`[data-place="${ringIndex},${index}"]`);
      if (held) held.focus();
    }});
}

let last = {place: '', time: -Infinity};

function isSecond(where, time) {  // of a double click; captured pointers give no dblclick
  const second = where === last.place && time - last.time < 400;
  last = {place: second ? '' : where, time};
  return second;
}

function pointerDown(event) {
  if (event.button !== 0 || !state.picture) return;
  const {dataset} = event.target, start = position(event);
  if (tool() === 'point') {
    state.asking = {point: start};
    ask({point: start}, 'the object at the point');
  } else if (tool() === 'box') {
    drag(event, {
      move: ([x, y]) => { state.asking = {box: [...start, x, y]}; renderOverlay(); },
      end: ([x, y]) => {
        const box = [Math.min(start[0], x), Math.min(start[1], y), Math.max(start[0], x),
          Math.max(start[1], y)];
        if (box[2] - box[0] < 2 || box[3] - box[1] < 2) {
          state.asking = null;
          say('Drag from one corner of the box to the other.', 'bad');
          render();
        } else {
          state.asking = {box};
          ask({box}, 'the object in the box');
        }
      }});
  } else if (dataset.place !== undefined && isSecond(dataset.place, event.timeStamp)) {
    removeVertex(place(dataset.place));
  } else if (dataset.place !== undefined) {
    dragVertex(event, {place: place(dataset.place)});
  } else if (dataset.after !== undefined) {
    dragVertex(event, {place: place(dataset.after), isNew: true});
  } else if (dataset.object !== undefined) {
    state.selected = Number(dataset.object);
    render();
  }
  event.preventDefault();
}

function vertexKey(event) {
  const {dataset} = event.target;
  if (dataset.place === undefined) return;
  const step = event.shiftKey ? 10 : 1, where = place(dataset.place);
  const moves = {ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step],
    ArrowDown: [0, step]};
  if (moves[event.key]) {
    change(() => {
      const ring = ringsOf(touched())[where[0]], [x, y] = ring[where[1]];
      ring[where[1]] = [clamp(x + moves[event.key][0], state.picture.width),
        clamp(y + moves[event.key][1], state.picture.height)];
    });
  } else if (event.key === 'Delete' || event.key === 'Backspace') {
    removeVertex(where);
  } else if (event.key === 'Insert') {
    change(() => insertVertex(where));
  } else {
    return;
  }
  event.preventDefault();
}

function pageKey(event) {
  const typing = ['INPUT', 'SELECT'].includes(event.target.tagName)
    && !['radio', 'checkbox'].includes(event.target.type);
  if (event.key === 'Escape') stop();
  if (typing || !(event.ctrlKey || event.metaKey)) return;
  const key = event.key.toLowerCase();
  if (key === 'z' && !event.shiftKey) undo();
  else if (key === 'y' || key === 'z') redo();
  else return;
  event.preventDefault();
}

function askNumbers() {
  const numbers = $('numbers').value.split(/[\s,;]+/).filter(Boolean).map(Number);
  if (![2, 4].includes(numbers.length) || numbers.some(Number.isNaN)) {
    say('Give two numbers (a point) or four (a box).', 'bad');
    return;
  }
  const kind = numbers.length === 2 ? 'point' : 'box';
  if (!state.asked.includes(kind)) {
    say(`This model was not taught ${ASKED[kind]}.`, 'bad');
    return;
  }
  state.asking = {[kind]: numbers};
  ask({[kind]: numbers}, kind === 'point' ? 'the object at the point' : 'the object in the box');
}

// --- start --------------------------------------------------------------------------------------
async function example() {
  const answer = await fetch('/static/example.jpg');
  await open(new File([await answer.blob()], 'example.jpg'));
  $('expression').value = 'large orange ring';
}

/** What the model was not taught is off, and said. */
function limitTo(asked) {
  state.asked = asked;
  const missing = Object.keys(ASKED).filter((kind) => !asked.includes(kind));
  for (const kind of missing) {
    if (kind === 'text') Object.assign($('all'), {checked: asked.includes('all'), disabled: true});
    else document.querySelector(`input[value=${kind}]`).disabled = true;
  }
  $('untaught').hidden = !missing.length;
  $('untaught').textContent = 'Off, since this model was not taught it: '
    + `${missing.map((kind) => ASKED[kind]).join(', ')}.`;
}

/** How many samples may be voted; no choice where the server votes none. */
function offerConsensus(usual, most) {
  $('vote').hidden = !most;
  const counts = [0, 4, 8, 16, 32, usual, most].filter((count) => count <= most);
  if (most) $('consensus').replaceChildren(...[...new Set(counts)].sort((a, b) => a - b).map(
    (count) => new Option(count ? `Vote of ${count + 1} answers` : 'One answer', count, false,
      count === usual)));
}

async function start() {
  $('browse').onclick = $('other').onclick = () => $('file').click();
  $('example').onclick = example;
  $('file').onchange = () => { open($('file').files[0]); $('file').value = ''; };
  $('ask').onsubmit = (event) => {
    event.preventDefault();
    const text = $('expression').value.trim();
    if (text) ask($('all').checked ? {text, all: true} : {text}, text);
    else say('Say in words what to outline.', 'bad');
  };
  $('ask-numbers').onclick = askNumbers;
  $('undo').onclick = undo;
  $('redo').onclick = redo;
  $('stop').onclick = stop;
  $('export').onclick = download;
  $('tools').onchange = () => { $('canvas').className = tool(); };
  $('canvas').addEventListener('pointerdown', pointerDown);
  $('canvas').addEventListener('keydown', vertexKey);
  addEventListener('keydown', pageKey);
  addEventListener('resize', fit);
  const stage = $('stage');
  for (const name of ['dragover', 'dragleave', 'drop']) {
    stage.addEventListener(name, (event) => {
      event.preventDefault();
      stage.classList.toggle('over', name === 'dragover');
      if (name === 'drop') open(event.dataTransfer.files[0]);
    });
  }
  addEventListener('paste', (event) => {
    const file = [...event.clipboardData.files].find((one) => one.type.startsWith('image/'));
    if (file) open(file);
  });
  try {
    const info = await (await fetch('/api/info')).json();
    state.maxMb = info.max_mb;
    limitTo(info.asked);
    offerConsensus(info.consensus, info.max_consensus);
    $('model').textContent = `Model: ${info.model}.`;
    $('format').replaceChildren(...info.formats.map((name) => new Option(
      {coco: 'COCO', labelme: 'LabelMe', geojson: 'GeoJSON', svg: 'SVG', yolo: 'YOLO-seg',
        cvat: 'CVAT'}[name] || name, name)));
  } catch {
    say('The server does not answer.', 'bad');
  }
  render();
}

start();

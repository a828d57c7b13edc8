'use strict';
/* The page: state in one object, one render function, history as snapshots.
   Texts of users and of the model enter the document as text alone (textContent). */

const $ = (id) => document.getElementById(id);
const SVG = 'http://www.w3.org/2000/svg';
const COLORS = ['#e6194b', '#0a84ff', '#2aa84a', '#f58231', '#911eb4', '#008080', '#c79a00'];

const state = {
  picture: null,      // {picture, name, width, height}
  objects: [],        // {label, color, polygons: [{outer: [[x, y]], holes: [ring]}]}
  selected: -1,
  draft: null,        // rings that are being written
  asking: null,       // the point or box that is being asked about
  running: null,      // AbortController
  maxMb: Infinity,    // of an upload
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
    const answer = await fetch('/api/segment', {
      method: 'POST', signal: control.signal, headers: {'content-type': 'application/json'},
      body: JSON.stringify({picture: state.picture.picture, prompt, stream: true})});
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
    state.draft = event.rings;
    const count = event.rings.reduce((sum, ring) => sum + ring.length, 0);
    say(`${label}: ${count} ${count === 1 ? 'vertex' : 'vertices'} …`, 'busy');
    renderOverlay();
  } else if (event.event === 'done') {
    finish(event.result, label);
  } else if (event.event === 'error') {
    throw new Error(event.message);
  }
}

function finish(result, label) {
  if (!result.polygons.length) {
    say(result.says_nothing ? `The model sees no ${label}.`
      : `No outline came of ${label}; the model wrote: ${result.text.slice(0, 120)}`, 'bad');
    return;
  }
  change(() => {
    state.objects.push({label: result.label === 'object' ? label : result.label,
      color: COLORS[state.objects.length % COLORS.length], polygons: result.polygons});
    state.selected = state.objects.length - 1;
  });
  const several = result.answers > 1 ? ` of ${result.answers} answers` : '';
  const sure = result.confidence === null ? ''
    : `, confidence ${result.confidence.toFixed(2)}${several}`;
  const doubt = result.warnings.map((text) => ` Warning: ${text}.`).join('');
  say(`${label}: ${vertices(state.objects.at(-1))} vertices in ${result.seconds.toFixed(1)} s`
    + `${sure}.${doubt}`, doubt ? 'bad' : undefined);
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
        objects: state.objects.map(({label, polygons}) => ({label, polygons}))})});
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

// --- drawing ------------------------------------------------------------------------------------
function element(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (parent) parent.append(made);
  return made;
}

const path = (rings, close) => rings.filter((ring) => ring.length)
  .map((ring) => 'M' + ring.map((point) => point.join(' ')).join('L') + (close ? 'Z' : ''))
  .join('');
const ringsOf = (object) => object.polygons.flatMap((one) => [one.outer, ...one.holes]);
const vertices = (object) => ringsOf(object).reduce((sum, ring) => sum + ring.length, 0);
const unit = () => state.picture.width / ($('overlay').clientWidth || state.picture.width);

function render() {
  const ready = Boolean(state.picture);
  $('empty').hidden = ready;
  $('canvas').hidden = !ready;
  $('expression').disabled = $('go').disabled = $('tools').disabled = !ready;
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
    const count = document.createElement('span');
    count.className = 'count';
    count.textContent = vertices(object);
    count.title = 'vertices';
    const remove = document.createElement('button');
    Object.assign(remove, {type: 'button', textContent: '×', onclick: () => change(() => {
      state.objects.splice(index, 1);
      state.selected = Math.min(state.selected, state.objects.length - 1);
    })});
    remove.setAttribute('aria-label', `Remove ${object.label}`);
    row.append(swatch, name, count, remove);
    return row;
  }));
}

function renderOverlay() {
  const overlay = $('overlay');
  const held = document.activeElement && document.activeElement.dataset
    ? document.activeElement.dataset.place : null;
  overlay.setAttribute('viewBox', `0 0 ${state.picture.width} ${state.picture.height}`);
  overlay.replaceChildren();
  state.objects.forEach((object, index) => {
    const shape = element('path', {class: `shape${index === state.selected ? ' selected' : ''}`,
      d: path(ringsOf(object), true), fill: object.color, stroke: object.color,
      'fill-rule': 'evenodd'}, overlay);
    shape.dataset.object = index;
    shape.append(Object.assign(document.createElementNS(SVG, 'title'),
      {textContent: object.label}));
  });
  if (state.objects[state.selected] && !state.draft) renderVertices(overlay);
  if (state.asking) renderAsking(overlay);
  if (state.draft) renderDraft(overlay);
  if (held) {
    const again = overlay.querySelector(`[data-place="${held}"]`);
    if (again) again.focus();
  }
}

/** Of each vertex of a ring, the pixels within which 90 % of the answers pass it; of a ring that
 * has lost or won vertices, nothing. */
function spreadOf(object, ringIndex) {
  const spread = object.polygons.flatMap((one) => one.spread || [])[ringIndex] || [];
  return spread.length === ringsOf(object)[ringIndex].length ? spread.map((pair) => pair[1]) : [];
}

function renderVertices(overlay) {
  const object = state.objects[state.selected], size = unit();
  const total = vertices(object);
  let number = 0;
  ringsOf(object).forEach((ring, ringIndex) => {
    spreadOf(object, ringIndex).forEach((r, index) => element('circle', {class: 'spread',
      cx: ring[index][0], cy: ring[index][1], r, 'aria-hidden': 'true'}, overlay));
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
  element('path', {class: 'draft', d: path(state.draft, false)}, overlay);
  for (const [x, y] of state.draft.flat()) {
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

const place = (text) => text.split(',').map(Number);
const tool = () => document.querySelector('input[name=tool]:checked').value;

function removeVertex([ringIndex, index]) {
  change(() => {
    const object = state.objects[state.selected];
    const ring = ringsOf(object)[ringIndex];
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
  const ring = ringsOf(state.objects[state.selected])[ringIndex];
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
    ringsOf(state.objects[state.selected])[ringIndex][index] = point;
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
      const point = ringsOf(state.objects[state.selected])[where[0]][where[1]];
      point[0] = clamp(point[0] + moves[event.key][0], state.picture.width);
      point[1] = clamp(point[1] + moves[event.key][1], state.picture.height);
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
    && event.target.type !== 'radio';
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
  state.asking = {[kind]: numbers};
  ask({[kind]: numbers}, kind === 'point' ? 'the object at the point' : 'the object in the box');
}

// --- start --------------------------------------------------------------------------------------
async function example() {
  const answer = await fetch('/static/example.jpg');
  await open(new File([await answer.blob()], 'example.jpg'));
  $('expression').value = 'large orange ring';
}

async function start() {
  $('browse').onclick = $('other').onclick = () => $('file').click();
  $('example').onclick = example;
  $('file').onchange = () => { open($('file').files[0]); $('file').value = ''; };
  $('ask').onsubmit = (event) => {
    event.preventDefault();
    const text = $('expression').value.trim();
    if (text) ask({text}, text);
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

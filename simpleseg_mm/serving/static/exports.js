/* Files of annotation formats: of the shown picture, or complete sets of the list. */
import * as api from './api.js';
import {$, say} from './dom.js';
import {fileOf, ready, serverId} from './pictures.js';
import {on, shown, state} from './store.js';
import {onWire} from './wire.js';

const NAMES = {coco: 'COCO', labelme: 'LabelMe', geojson: 'GeoJSON', svg: 'SVG',
  yolo: 'YOLO-seg', cvat: 'CVAT', labelstudio: 'Label Studio', parquet: 'Parquet (datasets)',
  corrections: 'Corrections, for training'};
let control = null;  // AbortController of a set that is being made

function save(name, blob) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function told({name, blob, notes}, more = []) {
  save(name, blob);
  const all = [...more, ...notes];
  say(`Exported ${name}. ${all.map((note) => `${note}.`).join(' ')}`, all.length ? 'bad' : '');
}

/** The shown picture's objects as one file. */
async function one(format) {
  const {key, objects} = shown();
  const ask = async (again) => api.exported({picture: await serverId(key, again), format,
    objects: objects.map(onWire)});
  told(await ask(false).catch((error) => {
    if (error.status !== 404) throw error;
    return ask(true);  // the server has forgotten the picture
  }));
}

// --- sets ---------------------------------------------------------------------------------------
/** The documents of a choice that have something to say, and how many have not. */
function chosen(which) {
  const all = which === 'this' ? [shown()] : [...state.documents.values()].filter(
    ({done}) => which === 'all' || done);
  const useful = all.filter(({objects, rejected, done, path, loaded, count}) => done
    || objects.length || rejected.length || (path && !loaded && count));
  return {documents: which === 'this' ? all : useful,
    left: which === 'this' ? 0 : all.length - useful.length};
}

async function set(format, which) {
  const {documents, left} = chosen(which), {signal} = control = new AbortController();
  if (!documents.length) throw new Error('No picture of the list is meant: none has objects or is '
    + 'marked done');
  const id = await api.beginSet({format, exact: false});
  const failed = [];
  try {
    for (const [index, {key, name}] of documents.entries()) {
      say(`Exporting picture ${index + 1} of ${documents.length} …`, 'busy');
      try {
        await add(id, key, signal);
      } catch (error) {
        if (error.name === 'AbortError' || error.status === 0) throw error;
        failed.push(`${name}: ${error.message}`);
      }
    }
    say('The server makes the file …', 'busy');
    const more = left ? [`Not in it: ${left} without objects that ${left === 1 ? 'is' : 'are'} not `
      + 'marked done'] : [];
    told(await api.finishedSet(id, signal), [...more, ...failed.slice(0, 5),
      ...failed.length > 5 ? [`and ${failed.length - 5} more failed`] : []]);
  } finally {
    api.dropSet(id).catch(() => {});
  }
}

async function add(id, key, signal) {
  const known = await ready(key);
  signal.throwIfAborted();
  const {name, path} = state.documents.get(known);
  const {number} = await api.addToSet(id, path ? {name, path}
    : {name, blob: await fileOf(known)}, signal);
  const {objects, done, rejected} = state.documents.get(known);
  await api.describeInSet(id, {number, objects: objects.map(onWire), done, rejected}, signal);
}

// --- the menu -----------------------------------------------------------------------------------
const whole = (format) => !state.info.formats.includes(format);

async function download() {
  const format = $('format').value, which = $('which').value;
  try {
    if (which === 'this' && !whole(format)) await one(format);
    else await set(format, which);
  } catch (error) {
    if (error.name === 'AbortError') say('Stopped.');
    else say(error.message, 'bad');
  } finally {
    control = null;
    render();
  }
}

function offer() {
  const {formats, sets = []} = state.info, many = $('which').value !== 'this';
  const chosenFormat = $('format').value;
  const names = many ? sets : [...formats, ...sets.filter((name) => !formats.includes(name))];
  $('format').replaceChildren(...names.map((name) => new Option(NAMES[name] || name, name)));
  if (names.includes(chosenFormat)) $('format').value = chosenFormat;
  $('which').hidden = !sets.length;
  render();
}

function render() {
  const some = $('which').value === 'this' ? shown() && (shown().objects.length
    || (state.info && $('format').value && whole($('format').value)
      && (shown().done || shown().rejected.length)))
    : state.documents.size;
  $('export').disabled = !some || Boolean(control);
  $('export-stop').hidden = !control;
}

export function connect() {
  $('export').onclick = () => { const made = download(); render(); return made; };
  $('export-stop').onclick = () => control?.abort();
  $('which').onchange = offer;
  $('format').onchange = render;
  on('info', offer);
  for (const event of ['document', 'current', 'list']) on(event, render);
}

/* Files of annotations of other tools, for pictures of the list. */
import * as api from './api.js';
import {say} from './dom.js';
import {ringsOf} from './geometry.js';
import {ready} from './pictures.js';
import {commit, state} from './store.js';
import {taken} from './wire.js';

const TEXT = /\.(json|geojson|xml|txt|ya?ml|csv|names)$/i;

const stem = (path) => path.split('/').pop().replace(/\.[^.]*$/, '');

async function content({file, name}) {
  if (TEXT.test(name)) return {path: name, text: await file.text()};
  const bytes = new Uint8Array(await file.arrayBuffer());
  let binary = '';
  for (let at = 0; at < bytes.length; at += 8192) {
    binary += String.fromCharCode(...bytes.subarray(at, at + 8192));
  }
  return {path: name, base64: btoa(binary)};
}

/** Read files, {file, name}; their objects come to the pictures that they are of, as a step of each
    one's history. */
export async function readAnnotations(entries) {
  say(`Reading ${entries.length} ${entries.length === 1 ? 'file' : 'files'} of annotations …`,
    'busy');
  try {
    const files = await Promise.all(entries.map(content));
    const keys = await candidates(files);
    if (!keys.length) {
      say('No picture of the list is named in these files: open the pictures first, or with them.',
        'bad');
      return;
    }
    const result = {pictures: 0, objects: 0, again: 0, notes: new Set()};
    await readFor(keys, files, result);
    const {pictures, objects, again, notes} = result;
    say([`${objects} ${objects === 1 ? 'object' : 'objects'} read for ${pictures} `
      + `${pictures === 1 ? 'picture' : 'pictures'}.`,
    ...again ? [`${again} that were there already are not added again.`] : [],
    ...[...notes].map((note) => `${note}.`)].join(' '), notes.size ? 'bad' : '');
  } catch (error) {
    say(error.message, 'bad');
  }
}

/** Keys of pictures that files may be about, read so far that their size is known. */
async function candidates(files) {
  const stems = new Set(files.map(({path}) => stem(path)));
  const whole = files.some(({base64}) => base64);
  const likely = [...state.documents.values()].filter(({name}) => whole || stems.has(stem(name))
    || files.some(({text}) => text?.includes(stem(name))));
  const keys = [];
  for (const [index, {key, name}] of likely.entries()) {
    if (index % 20 === 19) say(`Reading pictures: ${index + 1} of ${likely.length} …`, 'busy');
    try {
      keys.push(await ready(key));
    } catch (error) {
      if (error.status === 0) throw error;
      say(`${name}: ${error.message}`, 'bad');
    }
  }
  return keys;
}

async function readFor(keys, files, result) {
  const documents = new Map(keys.map((key) => [key, state.documents.get(key)]));
  const names = [...documents.values()].map(({name}) => name);
  const answer = await api.read({files, pictures: [...documents.values()].map(
    ({name, width, height}) => ({path: name, width, height}))});
  answer.notes.forEach((note) => result.notes.add(note));
  for (const [index, {path, objects, notes}] of answer.pictures.entries()) {
    notes.forEach((note) => result.notes.add(`${path}: ${note}`));
    const key = keys[names[index] === path ? index : names.indexOf(path)];
    if (key === undefined || !objects.length) continue;
    const there = state.documents.get(key).objects;
    const marks = new Set(there.map(markOf)), ids = new Set(there.map(({id}) => id));
    const fresh = objects.filter((object) => !marks.has(markOf(object))).map(({id, ...object}) => (
      id === undefined || ids.has(id) ? object : {id, ...object}));
    result.again += objects.length - fresh.length;
    if (!fresh.length) continue;
    commit(key, {objects: [...there, ...taken(fresh, there)]});
    result.pictures += 1;
    result.objects += fresh.length;
  }
}

/** What is the same for one object that was read twice. */
const markOf = ({label, polygons}) => JSON.stringify([label, ringsOf(polygons).map(
  (ring) => ring.map(([x, y]) => [x, y]))]);

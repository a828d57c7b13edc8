/* Pictures: opening them, showing one, and sending them to the server when it needs them. */
import * as api from './api.js';
import * as database from './database.js';
import {$, say} from './dom.js';
import {loadAnnotations} from './folder.js';
import {keepPicture, lastShown, note, started} from './keeping.js';
import {readAnnotations} from './reading.js';
import {addDocuments, amend, drop, on, rename, show, shown, state} from './store.js';
import {fit} from './view.js';

const KEEP_ALL = 2e8;  // bytes of files that are kept in the browser although nobody looked at them
const SHOWN = 60;      // pictures of the server that are held in memory
const PICTURE = /\.(jpe?g|jpe|jfif|png|webp|gif|bmp|dib|tiff?|jp2|j2k|jpx|ppm|pgm|pbm|pnm|tga)$/i;
const MASKS = /(^|\/)Segmentation(Class|Object)\//;  // VOC's
const ANNOTATIONS = /\.(json|geojson|xml|txt|ya?ml|zip|csv|names)$/i;

const files = new Map();    // key -> File or Blob of this visit
const sent = new Map();     // key -> promise of the server's id of the picture
const reading = new Map();  // key -> promise of its final key
const seen = new Map();     // key -> Blob of the server's that is shown; the newest last

// --- the server ---------------------------------------------------------------------------------
/** The server's id of a document's picture. It is sent where the server has not got it, and with
    `again` where it has forgotten it. */
export async function serverId(key, again = false) {
  if (again) sent.delete(key);
  if (!sent.has(key)) {
    const sending = send(key);
    sent.set(key, sending);
    sending.catch(() => sent.delete(key));
  }
  return (await sent.get(key)).picture;
}

async function send(key) {
  const {path, name} = state.documents.get(key);
  if (path) return learned(key, await api.openPath(path));
  return api.upload(await fileOf(key), name);
}

/** A picture of the folder may be another one than before. */
function learned(key, about) {
  const {width, height, digest} = about, was = state.documents.get(key);
  if (was.width !== width || was.height !== height || was.digest !== digest) {
    note(key, {width, height, digest, changed: was.changed || Boolean(was.digest)})
      .catch(() => {});
  }
  return about;
}

/** The file of a picture of the browser's. */
export async function fileOf(key) {
  const blob = files.get(key) || (await database.get('pictures', key))?.blob;
  if (!blob) {
    throw new Error(`${state.documents.get(key).name} is not in this browser any more: open it, `
      + 'or its folder, again. Its objects are kept');
  }
  return blob;
}

// --- reading ------------------------------------------------------------------------------------
/** Read a picture whose size and content are not known yet, and its annotations. Its key, which is
    another one after the first reading. */
export async function ready(key) {
  const document = state.documents.get(key);
  if (!document) throw new Error('The picture is not in the list any more');
  if (document.path ? document.width && document.loaded : document.width) return key;
  if (!reading.has(key)) {
    reading.set(key, (document.path ? readPath(key) : readFile(key)).catch((error) => {
      if (stays(error)) amend(key, {fault: error.message});
      throw error;
    }).finally(() => reading.delete(key)));
  }
  return reading.get(key);
}

/** Whether it is the picture's fault, and not the server's of this moment. */
const stays = ({status}) => status === undefined
  || (status >= 400 && status < 500 && status !== 408 && status !== 429);

async function readPath(key) {
  try {
    if (!state.documents.get(key).loaded) await loadAnnotations(key);
    if (!state.documents.get(key).width) await serverId(key);
  } catch (error) {  // without the server as this browser has it
    if (error.status !== 0 || !state.documents.get(key).width) throw error;
  }
  return key;
}

async function readFile(key) {
  const {name} = state.documents.get(key), file = await fileOf(key);
  const most = state.info?.max_mb ?? Infinity;
  if (file.size > most * 1e6) {
    throw new Error(`${name} has more than ${most} MB; make it smaller.`);
  }
  const about = await api.upload(file, name).catch((error) => {
    if (error.status !== 0) throw error;
    return measured(file, error);
  });
  const {width, height, digest} = about, to = `local:${digest}/${name}`;
  files.set(to, file);
  files.delete(key);
  if (about.picture) sent.set(to, Promise.resolve(about));
  rename(key, to, {width, height, digest, fault: ''});
  await keepPicture({key: to, blob: file}, name);
  return to;
}

/** Size and digest without a server, where this browser can find them. */
async function measured(file, why) {
  if (!globalThis.crypto?.subtle || !await shows(file)) throw why;
  const hash = await crypto.subtle.digest('SHA-256', await file.arrayBuffer());
  const digest = [...new Uint8Array(hash)].map((byte) => byte.toString(16).padStart(2, '0'))
    .join('').slice(0, 32);
  const image = await decoded(file);
  return {width: image.naturalWidth, height: image.naturalHeight, digest};
}

async function decoded(blob, image = new Image()) {
  if (image.src.startsWith('blob:')) URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(blob);
  await image.decode();
  return image;
}

/** Whether every browser shows a file as the server does: plain JPEG, PNG and WebP. Others may be
    turned another way, deeper than eight bits, or moving. */
async function shows(blob) {
  const bytes = new Uint8Array(await blob.slice(0, 65536).arrayBuffer());
  const text = (from, to) => String.fromCharCode(...bytes.subarray(from, to));
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return true;
  if (text(1, 4) === 'PNG') {
    for (let at = 8; at + 12 <= bytes.length;) {
      const kind = text(at + 4, at + 8);
      if (kind === 'IDAT') return bytes[24] <= 8;
      if (kind === 'eXIf' || kind === 'acTL') return false;
      at += 12 + new DataView(bytes.buffer).getUint32(at);
    }
    return false;
  }
  return text(0, 4) === 'RIFF' && text(8, 12) === 'WEBP'
    && (text(12, 16) !== 'VP8X' || !(bytes[20] & 0x0a));
}

// --- opening ------------------------------------------------------------------------------------
/** Open files, {file, name}: pictures come into the list, files of annotations are read for them.
    The first picture is shown; the others are read when they are needed. */
export async function open(entries) {
  await started;
  const pictures = entries.filter(({file, name}) => isPicture(file, name));
  const notes = entries.filter(({file, name}) => !isPicture(file, name) && !isHidden(name)
    && (ANNOTATIONS.test(name) || MASKS.test(name)));
  const others = entries.length - pictures.length - notes.length;
  const left = others ? ` ${others} ${others === 1 ? 'file is' : 'files are'} no picture and no `
    + 'annotations.' : '';
  if (!pictures.length && !notes.length) {
    say(`There is no picture.${left}`, 'bad');
    return;
  }
  const first = pictures.length ? await list(pictures) : null;
  if (first) await openFirst(first, pictures.length, left);
  if (notes.length) await readAnnotations(notes);
}

async function list(pictures) {
  const known = new Map([...state.documents.values()].filter(({file}) => file)
    .map((document) => [signature(document.name, document.file), document.key]));
  const fresh = [], keep = [];
  let first = null, size = 0;
  for (const {file, name} of pictures) {
    const about = {size: file.size, modified: file.lastModified};
    const mark = signature(name, about);
    let key = known.get(mark);
    if (!key) {
      key = `unread:${mark}`;
      known.set(mark, key);
      fresh.push({key, name, file: about});
    }
    files.set(key, file);
    first ??= key;
    keep.push({key, blob: file});
    size += file.size;
  }
  addDocuments(fresh);
  navigator.storage?.persist?.();
  if (size <= KEEP_ALL && (keep.length > 1 || !fresh.length)) {
    database.put('pictures', ...keep).catch(() => {});  // said when a picture is looked at
  }
  return first;
}

const signature = (name, {size, modified}) => `${size}-${modified}/${name}`;
const isHidden = (name) => /(^|\/)\./.test(name);
const isPicture = (file, name) => !isHidden(name) && !MASKS.test(name)
  && (file.type.startsWith('image/') || PICTURE.test(name));

async function openFirst(key, count, left) {
  const {name} = state.documents.get(key);
  say(`Opening ${name} …`, 'busy');
  if (await visit(key)) {
    $('expression').focus();
    await rendering;
    if (count > 1 || left) {
      say(`${count} ${count === 1 ? 'picture' : 'pictures'} opened.${left}`, left && 'bad');
    }
  } else if (count === 1 && key.startsWith('unread:') && state.documents.get(key)?.fault) {
    drop(key);
  }
}

/** The files of what was dropped, those in its folders too: {file, name}. */
async function filesOf(transfer) {
  const tops = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!tops.some(({isDirectory}) => isDirectory)) {
    return [...transfer.files].map((file) => ({file, name: file.name}));
  }
  const found = [];
  for (const top of tops) await walk(top, found);
  const strip = tops.length === 1 ? tops[0].fullPath.length + 1 : 1;
  return found.map(({file, path}) => ({file, name: path.slice(strip)}));
}

async function walk(entry, found) {
  if (entry.isFile) {
    found.push({file: await new Promise((resolve, reject) => { entry.file(resolve, reject); }),
      path: entry.fullPath});
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
    if (!some.length) return;
    for (const one of some) await walk(one, found);
  }
}

const collator = new Intl.Collator(undefined, {numeric: true});

/** As people sort, a2 before a10. */
const sorted = (entries) => entries.sort((a, b) => collator.compare(a.name, b.name));

// --- showing ------------------------------------------------------------------------------------
let wanted = null;

/** Read a document's picture and show it; whether this went well. The last call counts. */
export async function visit(key) {
  wanted = key;
  const {path, loaded} = state.documents.get(key) || {};
  try {
    const known = await ready(key);
    if (wanted === key) show(known);
    if (path && loaded) loadAnnotations(known).catch(() => {});  // what others wrote meanwhile
    return true;
  } catch (error) {
    if (wanted === key) say(error.message, 'bad');
    return false;
  }
}

/** Show the picture that was shown last, or, where the folder is known, one that is to be done. */
export async function visitLast(any = false) {
  const last = await lastShown();
  const key = state.documents.has(last) ? last : any && [...state.documents.values()]
    .find(({path, done}) => path && !done)?.key;
  if (key && wanted === null) await visit(key);
}

/** What the browser shows of a picture; the server's where `own` is false or it has to be. */
async function view(key, own = true) {
  if (seen.has(key)) return seen.get(key);
  const {path} = state.documents.get(key);
  const kept = path ? undefined : await database.get('pictures', key);
  const blob = path ? undefined : files.get(key) || kept?.blob;
  if (own && blob && await shows(blob)) return blob;
  if (kept?.shown) return kept.shown;
  const made = await serverId(key).then(api.picture).catch(async (error) => {
    if (error.status !== 404) throw error;
    return api.picture(await serverId(key, true));  // the server had forgotten it
  });
  seen.set(key, made);
  if (seen.size > SHOWN) seen.delete(seen.keys().next().value);
  if (blob) await keepPicture({key, blob, shown: made}, state.documents.get(key).name);
  return made;
}

let rendering = Promise.resolve();
let turn = 0;  // counts what is shown: of two that are being read the later one counts

async function render() {
  const document = shown(), image = $('picture'), mine = turn += 1;
  $('empty').hidden = Boolean(document);
  image.hidden = true;
  if (!document) return;
  const {key, name} = document;
  fit();
  try {
    await decoded(await view(key), image);
    if (turn === mine && image.naturalWidth !== shown().width) {
      await decoded(await view(key, false), image);
    }
  } catch (error) {
    if (turn === mine) say(`${name} cannot be shown: ${error.message}`, 'bad');
    return;
  }
  if (turn !== mine) return;
  image.hidden = false;
  fit();
  if (state.running.has(key)) return;
  const {width, height, changed} = shown();
  const twin = [...state.documents.values()].some((other) => other.name === name
    && other.key !== key && other.objects.length);
  if (changed) say(`${name} has changed since it was annotated: look at its outlines.`, 'bad');
  else say(`${name}: ${width} × ${height} pixels. Say what to outline.${twin
    ? ' Another picture of this name is in the list, with objects of its own.' : ''}`);
}

async function example() {
  const answer = await fetch('/static/example.jpg');
  await open([{file: new File([await answer.blob()], 'example.jpg', {lastModified: 0}),
    name: 'example.jpg'}]);
  $('expression').value = 'large orange ring';
}

/** The path below the opened folder. */
const below = (file) => file.webkitRelativePath.split('/').slice(1).join('/') || file.name;

export function connect() {
  $('browse').onclick = $('other').onclick = () => $('file').click();
  $('browse-folder').onclick = $('other-folder').onclick = () => $('folder').click();
  $('example').onclick = example;
  for (const input of [$('file'), $('folder')]) {
    input.onchange = () => {
      open(sorted([...input.files].map((file) => ({file, name: below(file)}))));
      input.value = '';
    };
  }
  const stage = $('stage');
  for (const name of ['dragover', 'dragleave', 'drop']) {
    stage.addEventListener(name, async (event) => {
      event.preventDefault();
      stage.classList.toggle('over', name === 'dragover');
      if (name !== 'drop') return;
      try {
        open(sorted(await filesOf(event.dataTransfer)));
      } catch (error) {
        say(`What was dropped cannot be read: ${error.message}`, 'bad');
      }
    });
  }
  addEventListener('paste', (event) => {
    const pasted = [...event.clipboardData.files].filter(({type}) => type.startsWith('image/'));
    if (pasted.length) open(pasted.map((file) => ({file, name: file.name || 'picture.png'})));
  });
  on('current', () => { rendering = render(); });
  on('restored', visit);
  on('removed', (keys) => keys.forEach((key) => sent.delete(key)));
}

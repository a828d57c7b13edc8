/* The server's folder (`--root`): its list, and the annotation files beside its pictures. What is
   changed here is saved there soon; until then it is `pending` in this browser. */
import * as api from './api.js';
import * as database from './database.js';
import {$, say} from './dom.js';
import {ringsOf, rounded} from './geometry.js';
import {flush, note, ofFolder, pending, reasonOf, reopenChoices, take} from './keeping.js';
import {accept, addDocuments, amend, emit, on, state} from './store.js';
import {onWire, taken} from './wire.js';

const SOON = 500;        // milliseconds after a change
const LATER = 5000;      // milliseconds after which what another tab has changed is saved here
const SENT = 5;          // savings without an answer that are remembered
const AGAIN = 3000;      // milliseconds after a failure
const timers = new Map();   // key -> timer of its next saving
const saving = new Map();   // key -> promise
const reasons = new Map();  // key -> why it is not saved, '' where it is about to be

const locked = (work) => (navigator.locks ? navigator.locks.request('simpleseg folder', work)
  : work());
const workOf = ({objects, done, rejected, review}) => ({objects, done, rejected, review});
const same = (a, b) => a.objects === b.objects && a.done === b.done && a.rejected === b.rejected
  && a.review === b.review;

/** What is the same for the work that was sent and that comes back. */
const markOf = ({objects, done}) => JSON.stringify([done, objects.map(({label, polygons}) => [label,
  ringsOf(polygons).map((ring) => ring.map(([x, y]) => [rounded(x), rounded(y)]))])]);

// --- reading ------------------------------------------------------------------------------------
/** The pictures of the folder come into the list, before others. */
async function list() {
  const {id, pictures, notes} = await api.folder();
  const {kept, others} = await ofFolder(id);
  const fresh = pictures.map(({path, objects, done, fault}, index) => {
    const key = `folder:${id}/${path}`, own = kept.get(key) || state.documents.get(key);
    const about = {key, name: path, path, folder: id, order: index - pictures.length, fault};
    if (own?.pending) return {...own, ...about, loaded: false};
    return {...own, ...about, done, loaded: false, count: objects ?? 0};
  });
  const there = new Set(fresh.map(({key}) => key));
  const lost = [...kept.values()].filter((one) => one.pending && !there.has(one.key));
  addDocuments([...fresh, ...lost], false);
  await reopenChoices();
  for (const {key, pending: waits} of [...fresh, ...lost]) if (waits) plan(key, 0);
  const more = others ? [`changes of ${others} pictures of another folder wait in this browser `
    + 'until its server runs'] : [];
  if (notes.length || more.length) {
    say([...notes, ...more].map((text) => `${text}.`).join(' '), 'bad');
  }
}

/** Read what the folder holds of a picture. Own changes that wait to be saved stay. */
export async function loadAnnotations(key) {
  const before = state.documents.get(key);
  if (before.pending) {
    amend(key, {loaded: true});
    return;
  }
  const read = await api.annotations(before.path), now = state.documents.get(key);
  if (!now || now.pending || !same(now, before)) return;  // changed here meanwhile
  if (now.loaded && now.revision === read.revision) return;
  await take(key, {...fieldsOf(read), loaded: true}, now.loaded);
  if (now.loaded && key === state.current) say(`${now.name} was changed by another program: this `
    + 'is what it wrote; Undo brings yours back.', 'bad');
  if (read.notes.length) say(read.notes.map((text) => `${text}.`).join(' '), 'bad');
}

/** Fields of a document by what the folder holds. */
const fieldsOf = ({objects, done, rejected, review, revision, changed, fault}) => ({
  objects: taken(objects), done, rejected: rejected || [], review: review === true, revision,
  changed, fault: fault || '', count: objects.length, pending: false});

// --- saving -------------------------------------------------------------------------------------
function plan(key, time = SOON) {
  clearTimeout(timers.get(key));
  timers.set(key, setTimeout(() => save(key), time));
  if (time !== LATER && !reasons.get(key)) tell(key, '');
}

function tell(key, reason) {
  if (reason === null) reasons.delete(key);
  else reasons.set(key, reason);
  const why = [...reasons.values()].find(Boolean);
  pending('folder', reasons.size ? why || '' : null);
}

/** Save a document to the folder now; ends when it is there, or was not saved. */
function save(key, force = false) {
  clearTimeout(timers.get(key));
  timers.delete(key);
  const last = saving.get(key) || Promise.resolve();
  const next = last.then(() => locked(() => put(key, force))).catch((error) => failed(key, error))
    .finally(() => { if (saving.get(key) === next) saving.delete(key); });
  saving.set(key, next);
  return next;
}

async function put(key, force) {
  await flush();
  const document = state.documents.get(key);
  if (!document?.pending || document.conflict) {
    if (!document?.conflict) tell(key, null);
    return;
  }
  const stored = await database.get('documents', key).catch(() => null);
  const work = workOf(document);
  await note(key, {sent: [...new Set([...document.sent || [], markOf(work)])].slice(-SENT)}, false);
  const {revision} = await api.saveAnnotations(document.path, {...work,
    objects: work.objects.map(onWire), digest: document.digest, force,
    revision: stored && !stored.removed ? stored.revision : document.revision});
  const waits = !same(state.documents.get(key), work);
  await note(key, {revision, pending: waits, changed: false, count: work.objects.length,
    sent: []});
  if (!waits) tell(key, null);
}

async function failed(key, error) {
  const {name, path} = state.documents.get(key) || {};
  tell(key, error.status === 409 ? `${name} was changed by another program.` : reasonOf(error));
  if (error.status !== 409) {
    timers.set(key, setTimeout(() => save(key), AGAIN));
    return;
  }
  const theirs = await api.annotations(path).catch(() => null);
  const {sent = []} = state.documents.get(key);
  if (theirs && sent.includes(markOf(theirs))) {  // the answer to our own saving was lost
    await note(key, {revision: theirs.revision});
    tell(key, '');
    plan(key, 0);
    return;
  }
  amend(key, {conflict: {from: 'file', theirs}});
  emit('conflict', key);
}

/** Where another program wrote, too: `mine` is written over its file, else that is taken. The other
    one stays a step of the history. */
export async function choose(key, mine) {
  if (mine) {
    const document = state.documents.get(key), {theirs} = document.conflict;
    if (theirs) accept(key, {...workOf(fieldsOf(theirs))});
    accept(key, {...workOf(document), conflict: null});
    await save(key, true);
    return;
  }
  const read = await api.annotations(state.documents.get(key).path);
  await take(key, {...fieldsOf(read), conflict: null});
  tell(key, null);
}

/** Save what waits. */
const saveAll = () => { for (const key of [...timers.keys()]) if (!reasons.get(key)) save(key); };

export function connect() {
  on('changed', (key) => {
    if (!state.documents.get(key)?.path) return;
    amend(key, {pending: true});
    plan(key);
  });
  on('document', (key) => {  // of another tab, which may have gone
    if (state.documents.get(key)?.pending && !timers.has(key) && !saving.has(key)) plan(key, LATER);
  });
  on('current', saveAll);
  addEventListener('visibilitychange', saveAll);
  addEventListener('pagehide', saveAll);
}

/** Begin with the server's folder, where it has one. */
export async function start() {
  if (!state.info.folder) return;
  $('folder-name').textContent = `Folder ${state.info.folder.name} of the server`;
  try {
    await list();
  } catch (error) {
    say(`The server's folder cannot be read: ${error.message}`, 'bad');
  }
}

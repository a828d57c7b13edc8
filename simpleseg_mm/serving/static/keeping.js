/* Nothing is lost: every change goes into the browser's store at once, and comes back from it; tabs
   that have the same document tell each other. */
import * as database from './database.js';
import {$, say} from './dom.js';
import {accept, addDocuments, amend, drop, emit, on, setSettings, state} from './store.js';

const KEEP_REMOVED = 3600 * 1000;  // milliseconds that a removed document can come back
const TRY_AGAIN = 5000;            // milliseconds
const AT_ONCE = 200;               // documents of a transaction
const dirty = new Set();    // keys of documents whose last change is not in the store yet
const gone = new Set();     // keys that were removed, likewise
let written = new Set();    // keys of documents that are just being written
let saving = null;          // promise of the saving that runs
let failure = '';           // why the last one failed
let again = 0;
const reasons = new Map();  // who -> what else is not saved yet, a text; '' where it is being saved
const channel = 'BroadcastChannel' in globalThis ? new BroadcastChannel('simpleseg') : null;
const withoutTransient = ({conflict, fault, ...document}) => document;

// --- what is said -------------------------------------------------------------------------------
/** Say for a part of the page that something is being saved (''), is not (a reason), or is
    (null). */
export function pending(who, reason) {
  if (reason === null) reasons.delete(who);
  else reasons.set(who, reason);
  tell();
}

const unsaved = () => dirty.size + gone.size + reasons.size > 0 || Boolean(saving)
  || (!database.available && [...state.documents.values()].some(({objects}) => objects.length));

function tell() {
  const reason = failure || [...reasons.values()].find(Boolean);
  const text = reason ? `Not saved yet: ${reason}`
    : dirty.size || gone.size || saving || reasons.size ? 'Saving …'
      : database.available ? 'Saved.'
        : 'This browser keeps nothing (a private window?): what you do is lost when this tab is '
          + 'closed. Export it.';
  $('saved').textContent = text;
  $('saved').className = reason || !database.available ? 'bad' : '';
}

// --- saving -------------------------------------------------------------------------------------
function save(key) {
  dirty.add(key);
  flush();
}

/** Save all that has changed; ends when it is in the store, or failed. */
export function flush() {
  clearTimeout(again);
  saving ??= saveAll().finally(() => { saving = null; tell(); });
  tell();
  return saving;
}

async function saveAll() {
  await null;  // changes of this moment go together
  while (dirty.size || gone.size) {
    const set = dirty.size ? dirty : gone;
    const keys = new Set([...set].slice(0, AT_ONCE));
    for (const key of keys) set.delete(key);
    try {
      if (set === gone) await saveGone(keys);
      else await saveDocuments(keys);
      failure = '';
    } catch (error) {
      for (const key of keys) set.add(key);
      failure = reasonOf(error);
      again = setTimeout(flush, TRY_AGAIN);
      return;
    }
  }
}

async function saveDocuments(keys) {
  const documents = new Map();  // as they are written
  const fits = (stored, {rev}) => !stored || stored.removed || stored.rev === rev;
  written = keys;
  const all = await database.exchange([...keys], (stored, key) => {
    const document = state.documents.get(key);
    if (!document) return null;
    documents.set(key, document);
    return fits(stored, document) && {...withoutTransient(document), rev: document.rev + 1,
      revision: stored && !stored.removed ? stored.revision : document.revision};
  }).finally(() => { written = new Set(); });
  for (const [key, document] of documents) {
    const stored = all.get(key);
    if (fits(stored, document)) {
      amend(key, {rev: document.rev + 1});
      channel?.postMessage({key, rev: document.rev + 1});
    } else {  // another tab wrote, and this one had not heard of it: both are kept
      await database.put('aside', {key, document: withoutTransient(document)});
      amend(key, {conflict: {from: 'tab', theirs: stored}});
      emit('conflict', key);
    }
  }
}

/** Removed documents stay in the store for a while, so that they can come back. */
async function saveGone(keys) {
  const all = await database.exchange([...keys], (stored) => stored && {...stored,
    rev: stored.rev + 1, removed: Date.now()});
  for (const key of all.keys()) channel?.postMessage({key, removed: true});
}

/** Change fields of the stored document which are not the user's work, and tell other tabs. */
export async function note(key, fields, tellTabs = true) {
  amend(key, fields);
  await database.exchange([key], (stored) => stored && {...stored, ...fields});
  if (tellTabs) channel?.postMessage({key, rev: state.documents.get(key)?.rev, fields});
}

/** Take a state of the user's work from elsewhere, here and in the store; see `accept`. */
export async function take(key, fields, undoable = true) {
  accept(key, fields, undoable);
  const stored = (await database.exchange([key], (old) => old && {...old, ...fields,
    rev: old.rev + 1})).get(key);
  if (!stored) return;
  amend(key, {rev: stored.rev + 1});
  channel?.postMessage({key, rev: stored.rev + 1});
}

export function reasonOf(error) {
  if (error.name !== 'QuotaExceededError') return `${error.message}.`;
  return 'this browser has no room left. Free some of the disk, or export and remove pictures '
    + 'from the list; this is tried again by itself.';
}

/** Keep a picture's file. Where there is no room its objects are kept all the same, and this is
    said. */
export async function keepPicture(record, name) {
  try {
    await database.put('pictures', record);
  } catch (error) {
    say(`The picture ${name} could not be kept (${reasonOf(error)}) Its objects are; open it `
      + 'again after a reload.', 'bad');
  }
}

// --- other tabs ---------------------------------------------------------------------------------
async function heard({key, rev, removed, fields}) {
  const document = state.documents.get(key);
  if (dirty.has(key) || written.has(key) || document?.conflict) return;  // its saving will see
  if (removed) {
    if (!document) return;
    if (key === state.current) say(`${document.name} was removed from the list in another tab.`);
    drop(key);
    gone.delete(key);
  } else if (fields) {
    amend(key, fields);
  } else if (!document) {
    const stored = await database.get('documents', key);
    if (stored && belongs(stored) && !state.documents.has(key)) addDocuments([stored], false);
  } else if (rev > document.rev) {
    const stored = await database.get('documents', key);
    if (stored && !dirty.has(key) && !written.has(key)) accept(key, stored);
  }
}

/** Where two tabs wrote: `mine` keeps this tab's document, else the other's is taken. The other
    one stays a step of the history. */
export async function choose(key, mine) {
  const {conflict, ...document} = state.documents.get(key);
  const theirs = await database.get('documents', key) || conflict.theirs;
  accept(key, {...theirs, conflict: null});
  if (mine) {
    const {objects, rejected, done, review} = document;
    accept(key, {objects, rejected, done, review});
    emit('changed', key);
  }
  await flush();
  await database.remove('aside', key);
}

// --- start --------------------------------------------------------------------------------------
let folder = null;  // id of the server's folder, once it is known
const belongs = ({path, folder: of}) => !path || of === folder;

/** All documents of this browser that need no server, and which one was shown last. */
async function load() {
  if (!await database.start()) return;
  const stored = await database.all('documents');
  const old = stored.filter(({removed}) => removed && Date.now() - removed > KEEP_REMOVED)
    .map(({key}) => key);
  await database.remove('documents', ...old);
  await database.remove('pictures', ...old);
  addDocuments(stored.filter((document) => !document.removed && belongs(document)), false);
  await reopenChoices();
  const settings = await database.get('about', 'settings');
  if (settings) setSettings(settings.value);
}

/** Choices between tabs that were left open are open again. */
export async function reopenChoices() {
  for (const {key, document} of await database.all('aside')) {
    const theirs = state.documents.get(key);
    if (!theirs || theirs.conflict) continue;
    accept(key, {...document, rev: theirs.rev, conflict: {from: 'tab', theirs}});
    emit('conflict', key);
  }
}

/** The documents of the server's folder that this browser has, by key. */
export async function ofFolder(id) {
  folder = id;
  const stored = await database.all('documents');
  return {kept: new Map(stored.filter((one) => one.path && one.folder === id)
    .map((one) => [one.key, one])),
  others: stored.filter((one) => one.path && one.folder !== id && one.pending).length};
}

export const started = load().catch((error) => {
  say(`What this browser keeps cannot be read: ${reasonOf(error)}`, 'bad');
});

/** Key of the document that was shown last, in this tab or else in any. */
export async function lastShown() {
  return sessionStorage.getItem('current')
    ?? (await database.get('about', 'current').catch(() => null))?.value ?? null;
}

export function connect() {
  on('changed', save);
  on('added', (keys) => keys.forEach((key) => { dirty.add(key); gone.delete(key); }));
  on('added', flush);
  on('removed', (keys) => keys.forEach((key) => { dirty.delete(key); gone.add(key); }));
  on('removed', flush);
  on('renamed', async ([from, to]) => {
    dirty.delete(from);
    await database.rename(from, to).catch((error) => { failure = reasonOf(error); });
    save(to);
  });
  on('current', () => {
    if (!state.current) return;
    sessionStorage.setItem('current', state.current);
    database.put('about', {key: 'current', value: state.current}).catch(() => {});
  });
  on('settings', () => {
    database.put('about', {key: 'settings', value: state.settings}).catch(() => {});
  });
  if (channel) channel.onmessage = ({data}) => heard(data);
  addEventListener('beforeunload', (event) => {
    if (unsaved()) event.preventDefault();
  });
  started.then(tell);
}

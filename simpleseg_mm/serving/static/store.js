/* What the page knows: documents, which one is shown, and the history of each.

   A document is {key, name, width, height, digest, objects, done, rejected} (docs/serving.md), and
   of the page alone: `review` (answers that nobody has looked at), `order` (its place in the list),
   `rev` (counts its changes in the browser's database), `file` ({size, modified} of a file),
   `path`, `revision` and `pending` (of the server's folder: see folder.js), `count` (objects, where
   they are not read yet), `fault`, `changed` and `conflict` (what the user is to know).
   Its width is null until the picture was read.
   Objects, lists of objects and polygons are values: nothing changes them in place, so that a
   history is a list of them, and what is equal by === has not changed. What the user does to a
   document goes through `commit`. */

const HISTORY = 500;  // steps of a document
const VERSIONED = ['objects', 'rejected', 'done', 'review'];  // what a step of a history holds

export const state = {
  documents: new Map(),  // by key, in the order of the list
  current: null,         // key of the shown document
  selected: null,        // id of the selected object
  tool: 'edit',
  info: null,            // what /api/info says; null until it is known
  settings: {classes: [], next: null},  // names that were typed; the class of what is drawn next
  running: new Map(),    // key -> {control: AbortController, draft: rings by instance, asking}
};
const histories = new Map();  // key -> {past, future}
const removals = [];          // {document, history, place}, the newest last
let removedLast = false;      // whether the removal of a document was the last change
const listeners = new Map();

// --- events -------------------------------------------------------------------------------------
/** Call `listener(detail)` at an event: 'document' (the state of one is another: its key),
    'changed' (the user has changed one: its key), 'current' (another one is shown), 'selection',
    'list' (the list looks different), 'added' and 'removed' (keys), 'restored' (key), 'renamed'
    ([from, to]), 'conflict' (key), 'running' (key), 'tool', 'info', 'settings' (they are
    kept), 'panel' (its name: it is in front). */
export function on(event, listener) {
  if (!listeners.has(event)) listeners.set(event, []);
  listeners.get(event).push(listener);
}

export function emit(event, detail) {
  for (const listener of listeners.get(event) || []) listener(detail);
}

// --- reading ------------------------------------------------------------------------------------
export const shown = () => state.documents.get(state.current) || null;
export const selectedObject = () => shown()?.objects.find(({id}) => id === state.selected) || null;
const historyOf = (key) => {
  if (!histories.has(key)) histories.set(key, {past: [], future: []});
  return histories.get(key);
};
export const canUndo = () => removedLast
  || Boolean(shown() && historyOf(state.current).past.length);
export const canRestore = () => removals.length > 0;
export const canRedo = () => Boolean(shown() && historyOf(state.current).future.length);

// --- changing -----------------------------------------------------------------------------------
let made = 0;

/** An object with everything that one has. */
export function makeObject(fields) {
  made += 1;
  return {id: `${Date.now().toString(36)}${made.toString(36)}${Math.random().toString(36)
    .slice(2, 6)}`, label: 'object', polygons: [], score: null, agreement: null, edited: false,
  hidden: false, locked: false, color: '#e6194b', origin: null,
  actions: {clicks: 0, moved: 0, added: 0, removed: 0, drawn: 0}, ...fields};
}

/** The fields of an object that was changed by hand; `done` counts what the user did. */
export const changed = (object, polygons, done = {}) => ({polygons, score: null, agreement: null,
  edited: true, actions: {...object.actions, ...Object.fromEntries(
    Object.entries(done).map(([name, count]) => [name, (object.actions[name] || 0) + count]))}});

/** Put documents into the list, by their `order`, else behind the others; one of a key that is
    there is replaced. Event 'added' where they are `fresh`: not in the browser's store. */
export function addDocuments(documents, fresh = true) {
  for (const document of documents) {
    state.documents.set(document.key, {objects: [], done: false, rejected: [], review: false,
      width: null, height: null, digest: null, order: newOrder(), rev: 0, ...document});
  }
  sortDocuments();
  if (fresh) emit('added', documents.map(({key}) => key));
  emit('list');
}

let lastOrder = 0;
const newOrder = () => (lastOrder = Math.max(Date.now(), lastOrder + 1 / 1024));

function sortDocuments() {
  const sorted = [...state.documents].sort(([, a], [, b]) => a.order - b.order);
  state.documents.clear();
  for (const [key, document] of sorted) state.documents.set(key, document);
}

/** Take a document out of the list; `restore` and `undo` bring it back. */
export function removeDocument(key) {
  const document = state.documents.get(key);
  if (!document) return;
  removals.push({document, history: historyOf(key)});
  removedLast = true;
  drop(key);
}

/** Let go of a document. */
export function drop(key) {
  state.running.get(key)?.control.abort();
  state.documents.delete(key);
  histories.delete(key);
  if (state.current === key) show(null);
  emit('removed', [key]);
  emit('list');
}

/** Bring back the document that was removed last. */
export function restore() {
  const {document, history} = removals.pop();
  removedLast = false;
  histories.set(document.key, history);
  addDocuments([document]);
  emit('restored', document.key);
}

/** A document gets its final key, once its picture was read; one that has it already stays. */
export function rename(from, to, fields) {
  const document = state.documents.get(from), there = state.documents.get(to);
  state.documents.delete(from);
  state.documents.set(to, there ? {...there, file: document.file ?? there.file}
    : {...document, ...fields, key: to});
  sortDocuments();
  emit('renamed', [from, to]);
  emit('list');
}

/** Show a document. */
export function show(key) {
  Object.assign(state, {current: key, selected: null});
  emit('current');
}

/** Change a document as one step of its history.

    `patch` holds new `objects`, `rejected`, `done` or `review`, and may hold `selected`. */
export function commit(key, {selected, ...patch}) {
  const changed = step(key, patch);
  if (selected !== undefined && key === state.current) select(selected);
  if (changed) {
    removedLast = false;
    emit('document', key);
    emit('changed', key);
  }
}

/** Take a state that comes from elsewhere (another tab, the folder): no change that is to be saved.
    Where `undoable`, it is a step of the history. */
export function accept(key, fields, undoable = true) {
  if (undoable) step(key, Object.fromEntries(VERSIONED.filter((name) => name in fields)
    .map((name) => [name, fields[name]])));
  amend(key, fields);
  if (key === state.current && !selectedObject()) select(null);
  emit('document', key);
}

/** Set fields of a document that are no work of the user's. */
export function amend(key, fields) {
  const document = state.documents.get(key);
  if (!document) return;
  state.documents.set(key, {...document, ...fields});
  emit('list');
}

function step(key, patch) {
  const document = state.documents.get(key);
  if (!document || !VERSIONED.some(
    (name) => name in patch && patch[name] !== document[name])) return false;
  const {past, future} = historyOf(key);
  past.push(stateOf(document));
  if (past.length > HISTORY) past.shift();
  future.length = 0;
  state.documents.set(key, {...document, ...patch});
  return true;
}

/** Change one object of the shown document by `edit(object)` -> fields; a step of the history. */
export function commitObject(id, edit) {
  const document = shown();
  commit(state.current, {objects: document.objects.map(
    (object) => (object.id === id ? {...object, ...edit(object)} : object))});
}

/** Change what is not of a document. */
export function setSettings(patch) {
  state.settings = {...state.settings, ...patch};
  emit('settings');
}

export function setTool(tool) {
  if (state.tool === tool) return;
  state.tool = tool;
  emit('tool');
}

export function select(id) {
  if (state.selected === id) return;
  state.selected = id;
  emit('selection');
}

const stateOf = (document) => ({selected: state.selected,
  ...Object.fromEntries(VERSIONED.map((name) => [name, document[name]]))});

function travel(from, to) {
  if (!from.length) return;
  const document = shown(), {selected, ...then} = from.pop();
  to.push(stateOf(document));
  state.documents.set(document.key, {...document, ...then});
  state.selected = then.objects.some(({id}) => id === selected) ? selected : null;
  emit('document', document.key);
  emit('selection');
  emit('changed', document.key);
}

export function undo() {
  if (removedLast) restore();
  else if (shown()) travel(historyOf(state.current).past, historyOf(state.current).future);
}

export function redo() {
  if (shown()) travel(historyOf(state.current).future, historyOf(state.current).past);
}

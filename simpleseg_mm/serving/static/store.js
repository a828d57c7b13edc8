/* What the page knows: documents, which one is shown, and the history of each.

   A document is {key, name, width, height, digest, objects, done, rejected} (docs/serving.md).
   Objects, lists of objects and polygons are values: nothing changes them in place, so that a
   history is a list of them, and what is equal by === has not changed. All changes of a document
   go through `commit`. */

const HISTORY = 500;  // steps of a document

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
const listeners = new Map();

// --- events -------------------------------------------------------------------------------------
/** Call `listener(detail)` at an event: 'document' (one has changed: its key), 'current' (another
    one is shown), 'selection', 'list' (documents came or went), 'running' (key), 'tool', 'info', 'settings' (they are kept). */
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
export const canUndo = () => Boolean(shown() && historyOf(state.current).past.length);
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

/** Put a document into the list, behind the others; one of this key is replaced. */
export function addDocument(document) {
  state.documents.set(document.key, {objects: [], done: false, rejected: [], ...document});
  emit('list');
}

export function removeDocument(key) {
  state.documents.delete(key);
  histories.delete(key);
  if (state.current === key) show(null);
  emit('list');
}

/** Show a document. */
export function show(key) {
  Object.assign(state, {current: key, selected: null});
  emit('current');
}

/** Change a document as one step of its history.

    `patch` holds new `objects`, `rejected` or `done`, and may hold `selected`. */
export function commit(key, {selected, ...patch}) {
  const document = state.documents.get(key);
  if (!document) return;
  const {past, future} = historyOf(key);
  const keys = Object.keys(patch).filter((name) => patch[name] !== document[name]);
  if (keys.length) {
    past.push(step(document));
    if (past.length > HISTORY) past.shift();
    future.length = 0;
    state.documents.set(key, {...document, ...patch});
  }
  if (selected !== undefined && key === state.current) select(selected);
  if (keys.length) emit('document', key);
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

const step = ({objects, rejected, done}) => ({objects, rejected, done, selected: state.selected});

function travel(from, to) {
  if (!from.length) return;
  const document = shown(), {selected, ...then} = from.pop();
  to.push(step(document));
  state.documents.set(document.key, {...document, ...then});
  state.selected = then.objects.some(({id}) => id === selected) ? selected : null;
  emit('document', document.key);
  emit('selection');
}

export function undo() {
  if (shown()) travel(historyOf(state.current).past, historyOf(state.current).future);
}

export function redo() {
  if (shown()) travel(historyOf(state.current).future, historyOf(state.current).past);
}

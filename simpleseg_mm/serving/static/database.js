/* The browser's own store (IndexedDB), by promises. What is kept in it:
   `documents` by key; `pictures` {key, blob, shown}: the file, and how the server shows it where
   the browser cannot; `aside` {key, document}: own changes that wait for a choice; `about`
   {key, value}: the rest.

   Where the browser has none (a private window of some), `available` is false: everything is then
   kept in memory alone. */

const STORES = ['documents', 'pictures', 'aside', 'about'];
export let available = false;
let opened = null;  // a promise of the database

function open() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open('simpleseg', 1);
    request.onupgradeneeded = () => STORES.forEach(
      (name) => request.result.createObjectStore(name, {keyPath: 'key'}));
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error('another tab holds the store'));
    request.onsuccess = () => {
      const made = request.result;
      made.onclose = made.onversionchange = () => { made.close(); opened = null; };
      resolve(made);
    };
  });
  opened.catch(() => { opened = null; });
  return opened;
}

/** Look whether there is a store. */
export async function start() {
  try {
    await open();
    available = true;
  } catch { /* told by who asks for `available` */ }
  return available;
}

/** Run `work(stores)` in one transaction; its value, once everything is written. */
async function transaction(names, mode, work) {
  if (!available) return undefined;
  const database = await open();
  return new Promise((resolve, reject) => {
    const unit = database.transaction(names, mode);
    let value;
    unit.oncomplete = () => resolve(value);
    unit.onabort = () => reject(unit.error || new Error('the browser stopped the saving'));
    work(Object.fromEntries(names.map((name) => [name, unit.objectStore(name)])),
      (result) => { value = result; });
  });
}

const reading = (name, ask) => transaction([name], 'readonly', (stores, give) => {
  const request = ask(stores[name]);
  request.onsuccess = () => give(request.result);
});

export const get = (name, key) => reading(name, (store) => store.get(key));
export const all = async (name) => await reading(name, (store) => store.getAll()) || [];
export const put = (name, ...values) => transaction([name], 'readwrite',
  (stores) => values.forEach((value) => stores[name].put(value)));
export const remove = (name, ...keys) => transaction([name], 'readwrite',
  (stores) => keys.forEach((key) => stores[name].delete(key)));

/** Replace documents by `change(stored, key)`, where that is not null, at one blow: no other tab
    writes in between. The stored ones are given back, a Map by key; empty without a store. */
export const exchange = async (keys, change) => await transaction(['documents'], 'readwrite',
  ({documents}, give) => {
    const stored = new Map();
    give(stored);
    for (const key of keys) {
      const request = documents.get(key);
      request.onsuccess = () => {
        stored.set(key, request.result);
        const next = change(request.result, key);
        if (next) documents.put(next);
      };
    }
  }) || new Map();

/** What is kept under one key comes under another. */
export const rename = (from, to) => transaction(['documents', 'pictures'], 'readwrite',
  ({documents, pictures}) => {
    documents.delete(from);
    const request = pictures.get(from);
    request.onsuccess = () => {
      if (!request.result) return;
      pictures.put({...request.result, key: to});
      pictures.delete(from);
    };
  });

/* Pictures: opening them, showing one, and sending them to the server when it needs them. */
import * as api from './api.js';
import {$, say} from './dom.js';
import {addDocument, on, show, shown, state} from './store.js';
import {fit} from './view.js';

const blobs = new Map();      // key -> File or Blob
const serverIds = new Map();  // key -> the server's id of the picture

/** The server's id of a document's picture. It is sent where the server has not got it, and with
    `again` where it has forgotten it. */
export async function serverId(key, again = false) {
  if (again) serverIds.delete(key);
  if (!serverIds.has(key)) {
    const {picture} = await api.upload(blobs.get(key), state.documents.get(key).name);
    serverIds.set(key, picture);
  }
  return serverIds.get(key);
}

/** Open files: each becomes a document; the first is shown. */
export async function open(files) {
  let first = null;
  for (const file of files) {
    const most = state.info?.max_mb ?? Infinity;
    if (file.size > most * 1e6) {
      say(`${file.name} has more than ${most} MB; make it smaller.`, 'bad');
      continue;
    }
    say(`Opening ${file.name || 'the picture'} …`, 'busy');
    try {
      const name = file.webkitRelativePath || file.name || 'picture.png';
      const {picture, width, height, digest} = await api.upload(file, name);
      const key = `local:${digest}/${name}`;
      blobs.set(key, file);
      serverIds.set(key, picture);
      if (!state.documents.has(key)) addDocument({key, name, width, height, digest});
      first ??= key;
    } catch (error) {
      say(error.message, 'bad');
    }
  }
  if (first) show(first);
}

async function render() {
  const document = shown(), image = $('picture');
  $('empty').hidden = Boolean(document);
  image.hidden = !document;
  $('other').disabled = !document;
  if (!document) return;
  const {key} = document;
  image.src = api.pictureUrl(await serverId(key));
  await image.decode();
  if (state.current !== key) return;
  say(`${document.name}: ${document.width} × ${document.height} pixels. Say what to outline.`);
  fit();
  $('expression').focus();
}

async function example() {
  const answer = await fetch('/static/example.jpg');
  await open([new File([await answer.blob()], 'example.jpg')]);
  $('expression').value = 'large orange ring';
}

export function connect() {
  $('browse').onclick = $('other').onclick = () => $('file').click();
  $('example').onclick = example;
  $('file').onchange = () => { open([...$('file').files]); $('file').value = ''; };
  const stage = $('stage');
  for (const name of ['dragover', 'dragleave', 'drop']) {
    stage.addEventListener(name, (event) => {
      event.preventDefault();
      stage.classList.toggle('over', name === 'dragover');
      if (name === 'drop') open([...event.dataTransfer.files]);
    });
  }
  addEventListener('paste', (event) => {
    const files = [...event.clipboardData.files].filter(({type}) => type.startsWith('image/'));
    if (files.length) open(files);
  });
  on('current', () => render().catch((error) => say(error.message, 'bad')));
}

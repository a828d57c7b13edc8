/* Files of annotation formats. */
import * as api from './api.js';
import {$, say} from './dom.js';
import {serverId} from './pictures.js';
import {on, shown, state} from './store.js';

const NAMES = {coco: 'COCO', labelme: 'LabelMe', geojson: 'GeoJSON', svg: 'SVG',
  yolo: 'YOLO-seg', cvat: 'CVAT'};

/** An object as the API takes it: how sure vertices are is said of the polygon. */
export function onWire({polygons, ...object}) {
  const places = (ring) => ring.map(([x, y]) => [x, y]);
  return {...object, polygons: polygons.map(({outer, holes}) => {
    const spread = [outer, ...holes].map((ring) => ring.map((point) => point[2] || null));
    return {outer: places(outer), holes: holes.map(places),
      spread: spread.flat().some(Boolean) ? spread : null};
  })};
}

function save(name, blob) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function download() {
  const {key, objects} = shown(), format = $('format').value;
  try {
    const ask = async (again) => api.exported({picture: await serverId(key, again), format,
      objects: objects.map(onWire)});
    const {name, blob, notes} = await ask(false).catch((error) => {
      if (error.status !== 404) throw error;
      return ask(true);  // the server has forgotten the picture
    });
    save(name, blob);
    say(`Exported ${name}. ${notes.map((note) => `${note}.`).join(' ')}`,
      notes.length ? 'bad' : undefined);
  } catch (error) {
    say(error.message, 'bad');
  }
}

export function connect() {
  $('export').onclick = download;
  on('info', () => $('format').replaceChildren(...state.info.formats.map(
    (name) => new Option(NAMES[name] || name, name))));
}

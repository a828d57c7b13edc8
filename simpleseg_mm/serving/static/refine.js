/* Outlines added to an object and cut away from it: by clicks, of which the model is asked, and by
   holes that are drawn over a border. The server works out the union or the difference. */
import * as api from './api.js';
import {ask} from './asking.js';
import {say} from './dom.js';
import {countVertices, ringsOf} from './geometry.js';
import {changed, commit, selectedObject, shown, state} from './store.js';
import {onWire} from './wire.js';

/** Ask the model what is at a point, and add it to the selected object ('add') or take it away
    ('cut'). */
export function refineAt(point, how) {
  const object = selectedObject(), key = state.current;
  if (!object || object.locked || object.hidden) {
    say(object ? 'The selected object is locked or hidden.'
      : 'Select the object to refine first (Edit, then click it).', 'bad');
    return;
  }
  ask(key, {point}, how === 'add' ? 'what to add' : 'what to take away',
    (polygons) => combine(key, object.id, how, polygons, {clicks: 1}));
}

/** Add polygons to an object of a document, or cut them away; what to tell the user. `done` counts
    what the user did. */
export async function combine(key, id, how, polygons, done) {
  const find = () => state.documents.get(key)?.objects.find((object) => object.id === id);
  const before = find(), {width, height} = state.documents.get(key);
  const plain = (some) => onWire({polygons: some}).polygons.map(
    ({outer, holes}) => ({outer, holes}));
  const answer = await api.refined({size: [height, width], how,
    polygons: plain(before.polygons), with: plain(polygons)});
  const object = find();
  if (!object || object.polygons !== before.polygons) {
    return 'The object was changed meanwhile: nothing was done to it.';
  }
  if (!answer.polygons.length) {
    return 'Nothing of the object would be left: it stays. Delete it, or click elsewhere.';
  }
  if (JSON.stringify(answer.polygons) === JSON.stringify(plain(before.polygons))) {
    return how === 'add' ? 'The object has all of that already.'
      : 'The object has nothing of that.';
  }
  const spreads = new Map(ringsOf(before.polygons).flat().filter((point) => point[2]).map(
    (point) => [`${point[0]},${point[1]}`, point]));
  const known = (ring) => ring.map((point) => spreads.get(`${point}`) || point);
  const made = answer.polygons.map(({outer, holes}) => ({outer: known(outer),
    holes: holes.map(known)}));
  commit(key, {objects: state.documents.get(key).objects.map((one) => (one === object
    ? {...object, ...changed(object, made, done)} : one))});
  const count = countVertices(ringsOf(made));
  const small = answer.left_out ? ` ${answer.left_out} pieces or holes of less than a pixel were `
    + 'left out.' : '';
  return `${how === 'add' ? 'Added to' : 'Taken from'} ${object.label}: ${count} vertices now.`
    + small;
}

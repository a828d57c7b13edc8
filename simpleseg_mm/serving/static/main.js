/* The page's start. Each module holds one thing and connects itself to the page; they speak by
   the store's events. */
import * as api from './api.js';
import * as asking from './asking.js';
import * as classes from './classes.js';
import {$, say} from './dom.js';
import * as draw from './draw.js';
import * as exportsMenu from './exports.js';
import * as keys from './keys.js';
import * as objects from './objects.js';
import * as overlay from './overlay.js';
import * as pictures from './pictures.js';
import {emit, state} from './store.js';
import * as tabs from './tabs.js';
import * as tools from './tools.js';
import * as view from './view.js';

for (const part of [overlay, draw, view, tools, objects, classes, asking, pictures, exportsMenu,
  tabs, keys]) part.connect();
try {
  state.info = await api.info();
  $('model').textContent = `Model: ${state.info.model}.`;
  emit('info');
} catch (error) {
  say(error.message, 'bad');
}

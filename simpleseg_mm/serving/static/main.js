/* The page's start. Each module holds one thing and connects itself to the page; they speak by
   the store's events. */
import * as api from './api.js';
import * as asking from './asking.js';
import * as batch from './batch.js';
import * as choice from './choice.js';
import * as classes from './classes.js';
import {$, say} from './dom.js';
import * as draw from './draw.js';
import * as exportsMenu from './exports.js';
import * as folder from './folder.js';
import * as keeping from './keeping.js';
import * as keys from './keys.js';
import * as levels from './levels.js';
import * as list from './list.js';
import * as objects from './objects.js';
import * as overlay from './overlay.js';
import * as pictures from './pictures.js';
import {emit, state} from './store.js';
import * as tabs from './tabs.js';
import * as tools from './tools.js';
import * as view from './view.js';

for (const part of [overlay, draw, view, levels, tools, objects, classes, asking, pictures, folder,
  keeping, list, batch, choice, exportsMenu, tabs, keys]) part.connect();
await keeping.started;
await pictures.visitLast();
state.info = await api.untilBack((error) => say(error.message, 'bad'));
$('model').textContent = `Model: ${state.info.model}.`;
emit('info');
await folder.start();
await batch.start();
if (!state.current) await pictures.visitLast(true);

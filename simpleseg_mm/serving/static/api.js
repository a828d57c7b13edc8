/* The server's API: one function a route. Every failure is an Error whose message is one line for
   the user; `status` is HTTP's, 0 where the server does not answer; `after`: seconds to wait. */

export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** fetch, or a ServerError. An abort stays an AbortError. */
async function request(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ServerError('The server does not answer. What you did is kept in this browser; '
      + 'try again when it runs.', 0);
  }
  if (answer.ok) return answer;
  let body = {};
  try {
    body = await answer.json();
  } catch { /* no JSON: the status has to do */ }
  const error = new ServerError(body.error || `the server answered ${answer.status}`,
    answer.status);
  throw Object.assign(error, {body, after: Number(answer.headers.get('retry-after')) || 2});
}

const json = (body, method = 'POST') => ({method, body: JSON.stringify(body),
  headers: {'content-type': 'application/json'}});

export const info = async () => (await request('/api/info')).json();

/** Send a picture: {picture, name, width, height, digest}; `picture` is the server's id. */
export const upload = async (blob, name) => (await request(
  `/api/pictures?name=${encodeURIComponent(name)}`,
  {method: 'POST', body: blob, headers: {'content-type': 'application/octet-stream'}})).json();

/** Open a picture of the server's folder; the same answer. */
export const openPath = async (path) => (await request(
  `/api/pictures?path=${encodeURIComponent(path)}`, {method: 'POST'})).json();

/** An opened picture, upright, as every browser shows it: a JPEG. */
export const picture = async (id) => (await request(`/api/pictures/${id}`)).blob();

/** Ends when the server answers; `told` is called each time that it does not. */
export async function untilBack(told, signal) {
  for (let pause = 1000; ; pause = Math.min(pause * 1.5, 10000)) {
    try {
      return await (await request('/api/info', {signal})).json();
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      told(error);
    }
    await sleep(pause, signal);
  }
}

/** Wait some milliseconds, or until `signal` aborts. */
export const sleep = (time, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, time);
  signal?.addEventListener('abort', () => {
    clearTimeout(timer);
    reject(new DOMException('stopped', 'AbortError'));
  });
});

// --- the server's folder ------------------------------------------------------------------------
const ofPath = (path) => `/api/folder/annotations?path=${encodeURIComponent(path)}`;
export const folder = async () => (await request('/api/folder')).json();
export const annotations = async (path) => (await request(ofPath(path))).json();
export const saveAnnotations = async (path, body) => (await request(ofPath(path),
  json(body, 'PUT'))).json();

// --- files of annotations -----------------------------------------------------------------------
export const read = async (body, signal) => (await request('/api/read',
  {...json(body), signal})).json();

/** The events of one prompt about one picture, as they come. */
export async function* segment(body, signal) {
  const answer = await request('/api/segment', {...json({...body, stream: true}), signal});
  let last = '';
  try {
    for await (const event of lines(answer.body)) {
      last = event.event;
      yield event;
    }
  } catch (error) {
    if (error.name === 'AbortError' || error instanceof ServerError) throw error;
    last = '';
  }
  if (last !== 'done' && last !== 'error') {
    throw new ServerError('The server went away while it was writing; try again.', 0);
  }
}

/** Polygons with others added or cut away: {polygons, left_out}. */
export const refined = async (body) => (await request('/api/refine', json(body))).json();

/** A file of an annotation format: {name, blob, notes}. */
export const exported = async (body) => downloaded(await request('/api/export', json(body)));

async function downloaded(answer) {
  const place = answer.headers.get('content-disposition') || "UTF-8''annotations";
  return {name: decodeURIComponent(place.split("UTF-8''")[1]), blob: await answer.blob(),
    notes: JSON.parse(decodeURIComponent(answer.headers.get('x-notes') || '[]'))};
}

/** A complete set of many pictures: begin it, add to it, have it, let it go. */
export const beginSet = async (body) => (await (await request('/api/sets', json(body))).json()).set;
export const addToSet = async (set, {name, path, blob}, signal) => {
  const given = new URLSearchParams(path ? {name, path} : {name});
  return (await request(`/api/sets/${set}/pictures?${given}`, {method: 'POST', signal, ...blob
    && {body: blob, headers: {'content-type': 'application/octet-stream'}}})).json();
};
export const describeInSet = (set, body, signal) => request(`/api/sets/${set}/objects`,
  {...json(body), signal});
export const finishedSet = async (set, signal) => downloaded(
  await request(`/api/sets/${set}`, {signal}));
export const dropSet = (set) => request(`/api/sets/${set}`, {method: 'DELETE'});

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const parts = (rest + value).split('\n');
    rest = parts.pop();
    for (const part of parts) if (part) yield JSON.parse(part);
  }
}

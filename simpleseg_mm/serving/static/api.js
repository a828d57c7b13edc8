/* The server's API: one function a route. Every failure is an Error whose message is one line for
   the user; `status` is HTTP's, 0 where the server does not answer. */

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
  throw Object.assign(error, {body});
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

/** The address of an opened picture, upright, as a browser shows it. */
export const pictureUrl = (id) => `/api/pictures/${id}`;

/** The events of one prompt about one picture, as they come. */
export async function* segment(body, signal) {
  const answer = await request('/api/segment', {...json({...body, stream: true}), signal});
  try {
    yield* lines(answer.body);
  } catch (error) {
    if (error.name === 'AbortError' || error instanceof ServerError) throw error;
    throw new ServerError('The server went away while it was writing; try again.', 0);
  }
}

/** Polygons with others added or cut away: {polygons, left_out}. */
export const refined = async (body) => (await request('/api/refine', json(body))).json();

/** A file of an annotation format: {name, blob, notes}. */
export async function exported(body) {
  const answer = await request('/api/export', json(body));
  const place = answer.headers.get('content-disposition') || "UTF-8''annotations";
  return {name: decodeURIComponent(place.split("UTF-8''")[1]), blob: await answer.blob(),
    notes: JSON.parse(decodeURIComponent(answer.headers.get('x-notes') || '[]'))};
}

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

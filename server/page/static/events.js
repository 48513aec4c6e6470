// Server-sent events: the payloads of a streamed response, one after the other.

const PREFIX = "data:";
const LAST = "[DONE]";

/**
 * The payloads of `response`, parsed. Comments and blank lines are skipped.
 *
 * @param {Response} response
 * @returns {AsyncGenerator<object>} Ends with the last event; throws a TypeError, as fetch does,
 *   where the stream ends before it.
 */
export async function* events(response) {
  for await (const line of lines(response.body)) {
    if (!line.startsWith(PREFIX)) continue;
    const payload = line.slice(PREFIX.length).trim();
    if (payload === LAST) return;
    yield JSON.parse(payload);
  }
  throw new TypeError("the stream ended before its last event");
}

async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      yield* parts;
    }
  } finally {
    // A caller that stops reading closes the connection, and the server aborts the request.
    reader.cancel().catch(() => {});
  }
}

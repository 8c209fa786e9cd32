// Requests to the server. If it asks for a token, a person is asked for it once, and nothing is sent until it is there.
// The token is kept by the tab until it is closed, and sent in a header, to this server only.

import {isToken} from "/ui/given.js";

const KEY = "moed-token";

const form = document.getElementById("access"), field = document.getElementById("token"),
  said = document.getElementById("access-said"), another = document.getElementById("another");

// A browser that keeps nothing for pages throws: then the token lasts as long as the page.
let token = kept(() => sessionStorage.getItem(KEY));
let onToken = () => {};

function kept(act) {
  try { return act(); } catch { return null; }
}

function use(value) {
  token = value;
  kept(() => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)));
  another.hidden = !value;
}

function askPerson(reason) {
  if (form.hidden) said.textContent = reason;
  form.hidden = false;
  another.hidden = true;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const given = field.value.trim();
  if (!isToken(given)) {
    said.textContent = "no token has blanks, or characters beyond ASCII";
    return;
  }
  use(given);
  field.value = "";
  form.hidden = true;
  onToken();
});
another.addEventListener("click", () => {
  use(null);
  askPerson("");
  field.focus();
});
another.hidden = !token;

// `act` is called whenever a person has given a token.
export function whenToken(act) {
  onToken = act;
}

// fetch() whose refusals are errors, with what the server says. Several requests may be refused for one token, and the
// last of them after the next token was given.
export async function ask(path, options = {}) {
  if (!form.hidden) throw new Error("the server asks for a token");
  const sent = token;
  const reply = await fetch(path, sent ? {...options, headers: {...options.headers, Authorization: `Bearer ${sent}`}} : options);
  if (reply.ok) return reply;
  const {error} = await reply.json().catch(() => ({}));
  const reason = error?.message ?? error ?? reply.statusText;
  if (reply.status === 401 && sent === token) {
    use(null);
    askPerson(sent ? reason : "");
  }
  throw new Error(reason);
}

export async function json(path, options) {
  return (await ask(path, options)).json();
}

// The JSON of the events of a stream; a last [DONE] is none.
export async function* events(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const {value, done} = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts)
      if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
  }
}

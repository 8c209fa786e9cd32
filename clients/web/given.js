// What people hand to the page, by its address or a field: anything.

// The model that an address names after its #; what is no encoding stands for itself.
export function modelIn(hash) {
  const name = hash.slice(1);
  try { return decodeURIComponent(name); } catch { return name; }
}

// Whether it can be a token: a header takes no blanks and nothing beyond ASCII, and fetch() would throw.
export function isToken(text) {
  return /^[!-~]+$/.test(text);
}

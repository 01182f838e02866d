// What the page says: English is in the code, translations of it come with the page.

const TEXTS = {{texts}};

/** A text in the language of the page, with each {name} replaced. */
function say(text, values = {}) {
  return (TEXTS[text] ?? text).replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// Formulas: finds them in Markdown, and sets them as MathML with a library that is loaded at the first formula.

const LIBRARY = "/page/vendor/temml.min.js";

/** @type {Promise<any> | null} */
let library = null;

function load() {
  library ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = LIBRARY;
    script.onload = () => resolve(/** @type {any} */ (globalThis).temml);
    script.onerror = () => {
      library = null;
      reject(new Error("The library for formulas could not be loaded."));
    };
    document.head.append(script);
  });
  return library;
}

/** @param {string} text */
function escaped(text) {
  return text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}

/**
 * @param {string} name
 * @param {"block" | "inline"} level
 * @param {RegExp} start where a formula may begin
 * @param {RegExp[]} forms whole formulas, the text in group 1
 * @param {(match: RegExpExecArray) => boolean} display
 */
function extension(name, level, start, forms, display) {
  return {
    name,
    level,
    start: (/** @type {string} */ text) => text.match(start)?.index,
    tokenizer(/** @type {string} */ text) {
      for (const form of forms) {
        const match = form.exec(text);
        if (match) return { type: name, raw: match[0], text: match[1].trim(), display: display(match) };
      }
      return undefined;
    },
    renderer(/** @type {any} */ token) {
      const tag = token.display ? "div" : "span";
      return `<${tag} class="math${token.display ? " display" : ""}">${escaped(token.text)}</${tag}>`;
    },
  };
}

/** Extensions of the Markdown parser: `$…$`, `\(…\)`, `$$…$$`, `\[…\]`. Prices are not formulas. */
export const mathExtensions = [
  extension("mathBlock", "block", /(?:^|\n) {0,3}(?:\$\$|\\\[)/, [/^ {0,3}\$\$([^$]+?)\$\$ *(?:\n|$)/, /^ {0,3}\\\[([\s\S]+?)\\\] *(?:\n|$)/], () => true),
  extension(
    "mathInline",
    "inline",
    /\$|\\\(|\\\[/,
    [/^\$\$([^$\n]+?)\$\$/, /^\\\[([\s\S]+?)\\\]/, /^\\\(([\s\S]+?)\\\)/, /^\$(?![\s$])((?:\\.|[^$\\\n])*?[^\s$\\])\$(?!\d)/],
    (match) => match[0].startsWith("$$") || match[0].startsWith("\\["),
  ),
];

/**
 * Replaces the text of formulas below `root` by MathML.
 * @param {ParentNode} root
 * @param {(node: Element) => void} sanitize
 */
export async function typeset(root, sanitize) {
  const formulas = root.querySelectorAll(".math:not([data-set])");
  if (formulas.length === 0) return;
  const temml = await load().catch(() => null);
  if (!temml) return;
  for (const formula of formulas) {
    // The text may have been drawn again, and typeset, while the library was loaded.
    if (formula.hasAttribute("data-set")) continue;
    const source = formula.textContent ?? "";
    const display = formula.classList.contains("display");
    const box = document.createElement("div");
    try {
      // Renders by DOM calls: strict CSP has no inline styles in markup.
      temml.render(source, box, { displayMode: display, throwOnError: true, trust: false, maxExpand: 200, maxSize: [20, 20] });
      sanitize(box);
      formula.replaceChildren(...box.childNodes);
    } catch {
      // Half a formula while it is being written, or one in error: its source is better than nothing.
      formula.classList.add("source");
    }
    formula.setAttribute("data-set", "");
  }
}

// Copies text to the clipboard, also on plain http, where `navigator.clipboard` is missing.

/**
 * @param {string} text
 * @returns {Promise<boolean>} whether it is on the clipboard
 */
export async function copyText(text) {
  try {
    if (navigator.clipboard) {
      await navigator.clipboard.writeText(text);
      return true;
    }
  } catch {
    // Permission may be denied; the old way may still work.
  }
  return copyBySelection(text);
}

function copyBySelection(/** @type {string} */ text) {
  const before = document.activeElement;
  // Inside an open dialog, since everything outside of it is inert.
  const home = before?.closest("dialog") ?? document.body;
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "hidden";
  area.readOnly = true;
  // The selection only makes the browser copy; what it copies would have the white space of the box's style.
  const write = (/** @type {ClipboardEvent} */ event) => {
    event.clipboardData?.setData("text/plain", text);
    event.preventDefault();
  };
  home.append(area);
  area.select();
  area.setSelectionRange(0, text.length);
  let copied = false;
  document.addEventListener("copy", write);
  try {
    copied = document.execCommand("copy");
  } finally {
    document.removeEventListener("copy", write);
    area.remove();
    if (before instanceof HTMLElement) before.focus();
  }
  return copied;
}

/**
 * A button's reaction to a copy: its name says for two seconds what happened.
 * @param {HTMLButtonElement} button
 * @param {string} text
 * @param {(sentence: string) => void} say
 */
export async function copyFrom(button, text, say) {
  const copied = await copyText(text);
  say(copied ? "Copied." : "The browser did not allow copying. Select the text instead.");
  button.classList.toggle("copied", copied);
  setTimeout(() => button.classList.remove("copied"), 2000);
}

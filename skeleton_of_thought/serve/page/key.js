// The server's key: asked for when the server says 401, kept for this tab only.

import { hasKey, setKey } from "./server.js";

/** Asks for the key; resolves to whether one was given. */
export function askForKey(dialog) {
  const box = dialog.querySelector("input");
  dialog.querySelector(".wrong").hidden = !hasKey();
  box.value = "";
  const form = dialog.querySelector("form");
  return new Promise((resolve) => {
    let given = false;
    const submit = (event) => {
      event.preventDefault();
      const key = box.value.trim();
      if (!key) return;
      given = true;
      setKey(key);
      dialog.close();
    };
    form.addEventListener("submit", submit);
    dialog.addEventListener(
      "close",
      () => {
        form.removeEventListener("submit", submit);
        resolve(given);
      },
      { once: true },
    );
    dialog.showModal();
    box.focus();
  });
}

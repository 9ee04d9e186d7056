// Dark or light. Not a module, so that it runs before the page is painted.

(() => {
  const NAME = "sot.theme";
  const NEXT = { auto: "light", light: "dark", dark: "auto" };
  const root = document.documentElement;

  function read() {
    try {
      return localStorage.getItem(NAME) ?? "auto";
    } catch {
      return "auto"; // the browser keeps nothing for this page
    }
  }

  function set(theme) {
    if (theme === "auto") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", theme);
  }

  let theme = read() in NEXT ? read() : "auto";
  set(theme);
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => (button.querySelector("span").textContent = theme);
    label();
    button.addEventListener("click", () => {
      theme = NEXT[theme];
      set(theme);
      label();
      try {
        localStorage.setItem(NAME, theme);
      } catch {
        // It holds until the page is closed.
      }
    });
  });
})();

"use strict";
{
  const element = (id) => document.getElementById(id);
  const items = [...document.querySelectorAll(".item")];
  const filter = element("filter");
  const form = filter.form;
  const plain = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  let texts = null; // made when the first letter is typed

  function textOf(item) {
    const parts = item.querySelectorAll("h3, .description, .reason, .find");
    return plain([...parts].map((part) => part.textContent).join("\n"));
  }

  function apply() {
    const words = plain(filter.value).split(/\s+/).filter(Boolean);
    const state = form.elements.state.value;
    if (words.length) texts ??= items.map(textOf);
    let shown = 0;
    items.forEach((item, index) => {
      const matches = (!state || item.dataset.state === state) && words.every((word) => texts[index].includes(word));
      item.hidden = !matches;
      shown += matches;
    });
    const total = items.length.toLocaleString("en");
    element("count").textContent = shown === items.length ? `${total} shown` : `${shown.toLocaleString("en")} of ${total} shown`;
    element("none").hidden = shown > 0;
  }

  async function copy(button) {
    const label = button.firstElementChild;
    label.dataset.text ??= label.textContent;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      label.textContent = "Copied";
    } catch {
      label.textContent = "Cannot copy"; // the browser asks for permission, or forbids it
    }
    element("said").textContent = label.textContent;
    setTimeout(() => {
      label.textContent = label.dataset.text;
      element("said").textContent = "";
    }, 2000);
  }

  function show(tile) {
    if (tile.querySelector("img")) return;
    const image = new Image();
    image.loading = "lazy";
    image.referrerPolicy = "no-referrer";
    image.alt = "";
    image.addEventListener("error", () => {
      image.remove();
      tile.classList.remove("covered");
      tile.querySelector("small").firstChild.data = "No cover";
    });
    tile.classList.add("covered");
    image.src = tile.dataset.cover;
    tile.append(image);
  }

  function hide(tile) {
    tile.querySelector("img")?.remove();
    tile.classList.remove("covered");
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.copy !== undefined) copy(button);
    if (button?.dataset.cover !== undefined) show(button);
  });
  element("covers").addEventListener("click", (event) => {
    const button = event.currentTarget;
    const pressed = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", pressed);
    document.querySelectorAll("[data-cover]").forEach(pressed ? show : hide);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target === filter) return;
    event.preventDefault();
    filter.select();
  });
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());

  form.hidden = items.length === 0;
  document.documentElement.classList.add("scripted"); // without a script, no button is shown that does nothing
  apply();
}

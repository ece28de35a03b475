// The page can be read without this: it filters, and opens what a link leads to.
const filter = document.getElementById("filter");
const calls = [...document.querySelectorAll(".call")];
const groups = [...document.querySelectorAll(".group")];

function show() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const call of calls) {
    const text = call.textContent.toLowerCase();
    call.hidden = !words.every((word) => text.includes(word));
    document.querySelector(`[data-of="${call.id}"]`).hidden = call.hidden;
  }
  for (const group of groups) {
    group.hidden = [...group.querySelectorAll(".call")].every((call) => call.hidden);
  }
  document.getElementById("none").hidden = calls.some((call) => !call.hidden);
}

function open() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.hidden = false;
    target.open = true;
    target.scrollIntoView();
  }
}

filter.addEventListener("input", show);
addEventListener("hashchange", open);
addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== filter && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    filter.focus();
  }
});
open();

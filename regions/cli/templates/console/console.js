"use strict";
// Takes what changed from the server and puts it in place, so that focus, selection and scrolling stay.
(() => {
  const SILENT_MS = 6000;
  const AGAIN_MS = 5000;
  const live = document.getElementById("live");
  let heard = Date.now();

  const say = (kind, text) => {
    live.className = kind;
    if (live.textContent !== text) live.textContent = text;
  };

  const place = (have, want) => {
    if (have.nodeType !== want.nodeType || have.nodeName !== want.nodeName) {
      have.replaceWith(want.cloneNode(true));
      return;
    }
    if (have.nodeType !== Node.ELEMENT_NODE) {
      if (have.data !== want.data) have.data = want.data;
      return;
    }
    for (const { name } of [...have.attributes]) if (!want.hasAttribute(name)) have.removeAttribute(name);
    for (const { name, value } of want.attributes) if (have.getAttribute(name) !== value) have.setAttribute(name, value);
    const [old, fresh] = [[...have.childNodes], [...want.childNodes]];
    fresh.forEach((child, at) => (at < old.length ? place(old[at], child) : have.append(child.cloneNode(true))));
    old.slice(fresh.length).forEach((child) => child.remove());
  };

  const take = (event) => {
    const { at, parts } = JSON.parse(event.data);
    heard = Date.now();
    for (const [name, html] of Object.entries(parts)) {
      const have = document.getElementById(`part-${name}`);
      const want = have.cloneNode(false);
      want.innerHTML = html;
      place(have, want);
    }
    say("good", `✓ Live, as of ${at}.`);
  };

  const lost = () => say("bad", "✗ Not live: the console gives nothing. What is shown is what it gave last.");

  const open = () => {
    const source = new EventSource("events");
    source.addEventListener("parts", take);
    source.onerror = () => {
      lost();
      // After a refusal the browser does not try again by itself.
      if (source.readyState === EventSource.CLOSED) setTimeout(open, AGAIN_MS);
    };
  };

  setInterval(() => { if (Date.now() - heard > SILENT_MS) lost(); }, 1000);
  open();
})();

"use strict";
// Shows the parts that the server sends. Their HTML is made and escaped by the server; nothing in it can run.
const SILENT_MS = 20000;  // without a word, after which the connection is made again
const RETRY_MS = 3000;
const connection = document.getElementById("connection");
let source = null;
let heard = Date.now();
let filled = false;  // whether a part has come

function show(name, html) {
  const place = document.getElementById(name);
  if (!place) return;
  const before = place.querySelector("pre.log");
  const follows = !before || before.scrollHeight - before.scrollTop - before.clientHeight < 40;
  const top = before ? before.scrollTop : 0;
  const focused = place.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  place.innerHTML = html;
  const log = place.querySelector("pre.log");
  if (log) log.scrollTop = follows ? log.scrollHeight : top;
  for (const link of focused ? place.querySelectorAll("a") : [])
    if (link.getAttribute("href") === focused) { link.focus({preventScroll: true}); break; }
  const title = name === "head" && place.querySelector("h1");
  if (title) document.title = title.textContent;
}

function listen() {
  if (source) source.close();
  heard = Date.now();
  source = new EventSource("/events" + location.search);
  source.onopen = () => { connection.textContent = filled ? "" : "The store is being read."; };
  source.onerror = () => { connection.textContent = "There is no connection to bloomline ui. It is tried again."; };
  source.addEventListener("beat", () => { heard = Date.now(); });
  source.addEventListener("part", event => {
    heard = Date.now();
    const part = JSON.parse(event.data);
    show(part.name, part.html);
    if (!filled) connection.textContent = "";
    filled = true;
  });
}

setInterval(() => {
  if (document.hidden || !source) return;
  if (source.readyState === EventSource.CLOSED || Date.now() - heard > SILENT_MS) listen();
}, RETRY_MS);
// A browser opens few connections to one server: a page that nobody sees leaves them to the others.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) listen();
  else if (source) { source.close(); source = null; }
});
if (!document.hidden) listen();

"use strict";
// Pointing at a mark says its numbers, pointing at a line or its name shows it alone, a click takes it away.
const tip = document.getElementById("tip");
const note = (mark) => mark.querySelector("title")?.textContent ?? "";
for (const mark of document.querySelectorAll(".mark")) {
  const text = note(mark);
  mark.querySelector("title")?.remove(); // the browser would say it a second time
  mark.setAttribute("aria-label", text);
  const show = (event) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = mark.getBoundingClientRect();
    const x = event.clientX ?? box.x, y = event.clientY ?? box.y;
    tip.style.left = Math.min(x + 14, innerWidth - tip.offsetWidth - 8) + "px";
    tip.style.top = Math.max(4, y - tip.offsetHeight - 10) + "px";
  };
  mark.addEventListener("pointermove", show);
  mark.addEventListener("focus", show);
  for (const end of ["pointerleave", "blur"]) mark.addEventListener(end, () => { tip.hidden = true; });
}
for (const chart of document.querySelectorAll("svg.chart")) {
  const look = (number) => {
    chart.classList.toggle("looking", number !== null);
    for (const each of chart.querySelectorAll(".series")) each.classList.toggle("seen", each.dataset.series === number);
  };
  for (const part of chart.querySelectorAll(".series, .key")) {
    part.addEventListener("pointerenter", () => look(part.dataset.series));
    part.addEventListener("pointerleave", () => look(null));
  }
  for (const key of chart.querySelectorAll(".key")) {
    key.addEventListener("click", () => {
      const off = key.classList.toggle("off");
      chart.querySelector(`.series[data-series="${key.dataset.series}"]`)?.classList.toggle("off", off);
    });
  }
}
document.documentElement.dataset.ready = String(performance.now());

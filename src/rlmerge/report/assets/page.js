"use strict";
const tip = document.getElementById("tip");
const said = document.getElementById("said");

function show(mark) {
  tip.textContent = mark.dataset.tip;
  const box = mark.getBoundingClientRect();
  const left = box.left + box.width / 2 - tip.offsetWidth / 2;
  tip.style.left = Math.max(4, Math.min(left, innerWidth - tip.offsetWidth - 4)) + "px";
  tip.style.top = (box.top > 40 ? box.top - tip.offsetHeight - 8 : box.bottom + 8) + "px";
  tip.classList.add("on");
}
const hide = () => tip.classList.remove("on");

for (const plot of document.querySelectorAll("svg.plot")) {
  let at = -1;
  const marks = () => [...plot.querySelectorAll("[data-tip]")].filter((m) => !m.closest("[hidden]"));
  const leave = () => { plot.querySelector(".here")?.classList.remove("here"); hide(); };
  plot.addEventListener("pointerover", (e) => e.target.dataset.tip ? show(e.target) : hide());
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", leave);
  plot.addEventListener("keydown", (e) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[e.key];
    const all = marks();
    if (e.key === "Escape") leave();
    if (!step || !all.length) return;
    e.preventDefault();
    plot.querySelector(".here")?.classList.remove("here");
    at = (at + step + all.length) % all.length;
    all[at].classList.add("here");
    said.textContent = all[at].dataset.tip;
    show(all[at]);
  });
}

for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    for (const part of document.querySelectorAll(`[data-series="${button.dataset.toggle}"]`)) {
      part.toggleAttribute("hidden", !on);
      part.style.display = on ? "" : "none";
    }
  });
}

document.getElementById("copy")?.addEventListener("click", async (e) => {
  const text = document.getElementById("recipe").textContent;
  try {
    await navigator.clipboard.writeText(text);
    e.target.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(document.getElementById("recipe"));
    e.target.textContent = "Selected";
  }
});

const table = document.getElementById("tensors");
if (table) {
  const body = table.tBodies[0];
  document.getElementById("filter").addEventListener("input", (e) => {
    const wanted = e.target.value.toLowerCase();
    let shown = 0;
    for (const row of body.rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      shown += !row.hidden;
    }
    document.getElementById("shown").textContent = `${shown} of ${body.rows.length} tensors`;
  });
  table.tHead.addEventListener("click", (e) => {
    const head = e.target.closest("th");
    if (!head || !e.target.closest("button")) return;
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].textContent;
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      const both = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
      return both ? x - y : String(x).localeCompare(String(y));
    };
    body.append(...[...body.rows].sort((a, b) => (up ? order(a, b) : order(b, a))));
  });
}

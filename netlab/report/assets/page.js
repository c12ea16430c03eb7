// The page: opens its data, and lets one scene after another, or two side by side, be looked at.

import { html } from "./inspector.js";
import { onPaper } from "./paper.js";
import { draw } from "./plots.js";
import { States } from "./states.js";
import { Scene, gunzip } from "./store.js";
import { View } from "./view.js";

const opened = new Map();
const text = (id) => document.getElementById(id).textContent;

async function scene(id) {
  if (!opened.has(id)) {
    const [data, octets] = await Promise.all([gunzip(text(`data-${id}`)), gunzip(text(`octets-${id}`))]);
    const shared = JSON.parse(text("shared"));
    opened.set(id, new Scene(JSON.parse(new TextDecoder().decode(data)), octets, shared));
  }
  return opened.get(id);
}

let plotly = null;
function loadPlotly() {
  plotly ??= (async () => {
    const packed = document.getElementById("plotly");
    if (!packed) return null;
    const code = new TextDecoder().decode(await gunzip(packed.textContent));
    const script = document.createElement("script");
    script.textContent = code;
    document.head.append(script);
    return window.Plotly;
  })();
  return plotly;
}

class Stage {
  constructor(into) {
    this.into = into;
  }

  async open(id) {
    const found = await scene(id);
    this.view = null;
    if (!found.size) {
      this.into.replaceChildren(html("p", { class: "nl-hint" }, `There is no packet of TCP, UDP or ICMP in ${found.name} that could be drawn.`));
      return;
    }
    this.view = new View(found);
    this.states = new States(found, (at) => this.view.select(this.view.near(at), "chosen"));
    this.plots = html("div", { class: "nl-plots" });
    this.paper = html("div", { class: "nl-onpaper" });
    this.into.replaceChildren(
      this.view.element,
      html("h3", {}, "States of both ends"), this.states.element,
      html("h3", {}, "Plots"), this.plots, this.paper,
    );
    this.view.listeners.push((kind, value) => (kind === "conversation" ? this.conversation(value) : this.states.now(value)));
    this.watch = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) this.drawPlots();
    }, { rootMargin: "300px" });
    const shown = this.view.conversation.value;
    this.conversation(shown === "" ? null : Number(shown));
    this.watch.observe(this.plots);
    this.view.step(1);
  }

  conversation(number) {
    this.states.show(number);
    this.number = number;
    this.replot();
  }

  replot() {
    this.drawn = false;
    this.plots.replaceChildren();
    const box = this.plots.getBoundingClientRect();
    if (this.plots.isConnected && box.top < innerHeight + 300 && box.bottom > -300) this.drawPlots();
  }

  print(on) {
    if (this.view) this.paper.replaceChildren(...(on && this.number !== null ? onPaper(this.view.scene, this.number) : []));
  }

  repaint() {
    if (this.view) this.replot();
  }

  async drawPlots() {
    if (this.drawn) return;
    this.drawn = true;
    const number = this.number;
    if (number === null) {
      this.plots.append(html("p", { class: "nl-hint" }, "Choose one connection to see its plots."));
      return;
    }
    const Plotly = await loadPlotly();
    if (!Plotly) {
      this.plots.append(html("p", { class: "nl-hint" }, "This page was made without its charts: install netlab-tcpip[report] and make it again."));
      return;
    }
    if (number === this.number) draw(Plotly, this.view.scene, number, this.plots, (index) => index >= 0 && this.view.select(index, "chosen"));
  }
}

// On paper nothing can be unfolded: what was judged is. Plots are drawn, looked at or not.
function prepareForPrint(stages) {
  let folded = [];
  addEventListener("beforeprint", () => {
    for (const stage of stages) stage.print(true);
    folded = [...document.querySelectorAll("#verdicts details:not([open])")];
    for (const one of folded) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of folded) one.open = false;
    for (const stage of stages) stage.print(false);
  });
}

// A verdict or a finding leads to its packets, and the browser's way back to it again.
async function lead(link, pick, stages, show) {
  if (!stages[0].view) return;
  const { scene: number, finding, packets } = link.dataset;
  if (pick && pick.value !== number) {
    pick.value = number;
    await show();
  }
  const { view } = stages[0];
  const indices = finding ? view.scene.findings[finding].passages : packets.split(" ").map(Number);
  view.mark(indices, link.closest("tr").querySelector(".nl-claim").textContent.trim());
  if (location.hash !== link.hash) history.pushState(null, "", link.hash);
  view.marks.scrollIntoView();
  view.ladder.view.focus({ preventScroll: true });
}

async function main() {
  const theme = document.getElementById("theme");
  theme?.addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme
      ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    for (const stage of stages) stage.repaint();
  });
  const [first, second] = ["scene-1", "scene-2"].map((id) => document.getElementById(id));
  const stages = first ? [new Stage(first)] : [];
  prepareForPrint(stages);
  if (!first) return;
  const pick = document.getElementById("pick");
  const beside = document.getElementById("beside");
  const show = async () => {
    const id = pick ? pick.value : "0";
    await stages[0].open(id);
    for (const part of document.querySelectorAll("[data-of]")) part.hidden = part.dataset.of !== id;
    document.documentElement.dataset.ready = "yes";
  };
  const compare = async () => {
    const on = beside && beside.value !== "";
    second.hidden = !on;
    second.parentElement.classList.toggle("nl-side-by-side", on);
    stages.length = 1;
    if (on) {
      stages.push(new Stage(second));
      await stages[1].open(beside.value);
    } else second.replaceChildren();
    await show();
  };
  pick?.addEventListener("change", show);
  beside?.addEventListener("change", compare);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.nl-way");
    if (!link) return;
    event.preventDefault(); // following the link would take the focus away from the ladder
    lead(link, pick, stages, show);
  });
  await show();
}

main();

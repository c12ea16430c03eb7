// The page: opens its data, and lets one scene after another, or two side by side, be looked at.

import { html } from "./inspector.js";
import { draw } from "./plots.js";
import { states } from "./states.js";
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
    this.view = new View(found);
    this.states = html("div");
    this.plots = html("div", { class: "nl-plots" });
    this.into.replaceChildren(
      this.view.element,
      html("h3", {}, "States of both ends"), this.states,
      html("h3", {}, "Plots"), this.plots,
    );
    this.view.listeners.push((kind, value) => kind === "conversation" && this.conversation(value));
    this.watch = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) this.drawPlots();
    }, { rootMargin: "300px" });
    const shown = this.view.conversation.value;
    this.conversation(shown === "" ? null : Number(shown));
    this.watch.observe(this.plots);
  }

  conversation(number) {
    const { scene: found } = this.view;
    const history = (found.histories ?? []).find((h) => h.conversation === number);
    this.states.replaceChildren(history
      ? states(history, found, (at) => this.view.select(this.firstAfter(at), "chosen"))
      : html("p", { class: "nl-hint" }, number === null ? "Choose one connection to see its states." : "Nothing was recorded of the states of this connection."));
    this.number = number;
    this.drawn = false;
    this.plots.replaceChildren();
    const box = this.plots.getBoundingClientRect();
    if (this.plots.isConnected && box.top < innerHeight + 300 && box.bottom > -300) this.drawPlots();
  }

  firstAfter(at) {
    const rows = this.view.rows;
    return rows.find((i) => this.view.scene.at[i] >= at - 1000) ?? rows[rows.length - 1];
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

async function main() {
  const theme = document.getElementById("theme");
  theme?.addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme
      ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    for (const stage of stages) stage.open(stage.id);
  });
  const [first, second] = ["scene-1", "scene-2"].map((id) => document.getElementById(id));
  if (!first) return;
  const stages = [new Stage(first)];
  const pick = document.getElementById("pick");
  const beside = document.getElementById("beside");
  const show = async () => {
    const id = pick ? pick.value : "0";
    stages[0].id = id;
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
      stages[1].id = beside.value;
      await stages[1].open(beside.value);
    } else second.replaceChildren();
    await show();
  };
  pick?.addEventListener("change", show);
  beside?.addEventListener("change", compare);
  await show();
}

main();

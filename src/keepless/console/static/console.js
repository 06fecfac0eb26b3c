// What pages do beyond HTML. Without it everything that destroys still works; charts have their table.
"use strict";
(() => {
  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const each = (root, selector, act) => root.querySelectorAll(selector).forEach(act);

  function copy(button) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const from = document.getElementById(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(from.textContent);
        button.textContent = "Copied";
      } catch {
        const range = document.createRange();
        range.selectNodeContents(from);
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        button.textContent = "Selected";
      }
    });
  }

  // A chart's numbers stand in its own table: [times, series...].
  function chart(place) {
    if (!window.uPlot) return;
    const told = JSON.parse(place.dataset.chart);
    const axis = { stroke: token("--soft"), grid: { stroke: token("--line"), width: 1 }, ticks: { show: false }, font: "12px " + token("--font") };
    const bars = told.bars ? { paths: uPlot.paths.bars({ size: [0.7, 40] }), points: { show: false } } : { points: { show: false } };
    const series = told.series.map((label, at) => {
      const colour = token("--chart-" + ((at % 4) + 1));
      return { label, stroke: colour, fill: told.bars ? colour : undefined, width: told.bars ? 0 : 2, spanGaps: !!told.steps, ...bars };
    });
    const options = {
      width: place.clientWidth, height: 190, tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "UTC"),
      cursor: { y: false }, legend: { live: true },
      scales: { x: { time: !told.steps }, y: { range: (u, low, high) => [0, Math.max(high * 1.08, 1)] } },
      axes: [{ ...axis, space: 64, values: (u, at) => told.steps ? at.map(String) : at.map((one) => new Date(one * 1000).toISOString().slice(5, 10)) }, { ...axis, size: 56 }],
      series: [{ label: told.steps ? "Step" : "Day", value: (u, at) => at == null ? "" : told.steps ? String(at) : new Date(at * 1000).toISOString().slice(0, told.hours ? 16 : 10).replace("T", " ") }, ...series],
    };
    place.replaceChildren();
    const plot = new uPlot(options, told.data, place);
    new ResizeObserver(() => plot.setSize({ width: place.clientWidth, height: 190 })).observe(place);
  }
  const charts = () => each(document, "[data-chart]", chart);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", charts);

  // The button of a typed confirmation wakes up when the words are there; the server asks for them again.
  function confirmation(input) {
    const button = input.form.querySelector("[data-final]");
    const look = () => { button.disabled = input.value.trim().toLowerCase() !== input.dataset.phrase; };
    input.addEventListener("input", look);
    look();
  }

  async function firstRequest(form) {
    form.hidden = false;
    const said = document.getElementById("first-answer");
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const button = form.querySelector("button");
      button.disabled = true;
      said.hidden = false;
      said.querySelector("[data-text]").textContent = "Waiting for the model…";
      try {
        const answer = await fetch("/v1/chat/completions", {
          method: "POST",
          headers: { "content-type": "application/json", authorization: "Bearer " + document.getElementById("new-key").textContent },
          body: JSON.stringify({ model: form.dataset.model, max_tokens: 48, temperature: 0, messages: [{ role: "user", content: form.elements.question.value }] }),
        });
        const body = await answer.json();
        said.querySelector("[data-text]").textContent = answer.ok ? body.choices[0].message.content : body.error.message;
        said.querySelector("[data-status]").textContent = String(answer.status);
        said.querySelector("[data-kept]").textContent = answer.headers.get("x-keepless-retention");
        const id = answer.headers.get("x-request-id");
        const link = said.querySelector("[data-explain]");
        link.textContent = id;
        link.href = "/explain?request=" + encodeURIComponent(id);
      } catch {
        said.querySelector("[data-text]").textContent = "The request did not get through.";
      }
      button.disabled = false;
    });
  }

  // A file goes as it is, in the body of its request; its name, which is content, in a header and in no address.
  function upload(form) {
    form.hidden = false;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const file = form.elements.file.files[0];
      if (!file) return;
      const bar = form.querySelector("progress"), said = form.querySelector("[data-said]"), button = form.querySelector("button");
      const request = new XMLHttpRequest();
      request.open("POST", form.action);
      request.setRequestHeader("x-csrf-token", form.elements.csrf ? form.elements.csrf.value : "");
      request.setRequestHeader("x-file-name", encodeURIComponent(file.name));
      request.setRequestHeader("x-file-purpose", form.elements.purpose.value);
      request.setRequestHeader("x-file-project", form.elements.project.value);
      request.setRequestHeader("accept", "application/json");
      request.setRequestHeader("content-type", "application/octet-stream");
      bar.hidden = false;
      button.disabled = true;
      request.upload.onprogress = (at) => { bar.max = at.total; bar.value = at.loaded; said.textContent = Math.round(100 * at.loaded / at.total) + " %"; };
      request.onload = () => {
        button.disabled = false;
        if (request.status === 200) { location.assign("/files?done=uploaded"); return; }
        bar.hidden = true;
        try { said.textContent = JSON.parse(request.responseText).error.message; } catch { said.textContent = "The upload was refused."; }
      };
      request.onerror = () => { button.disabled = false; said.textContent = "The upload did not get through."; };
      request.send(file);
    });
  }

  function begin(root) {
    each(root, "[data-copy]", copy);
    each(root, "[data-chart]", chart);
    each(root, "input[data-phrase]", confirmation);
    each(root, "form[data-first]", firstRequest);
    each(root, "form[data-upload]", upload);
    each(root, "select[data-submit]", (select) => select.addEventListener("change", () => select.form.requestSubmit()));
  }
  document.addEventListener("DOMContentLoaded", () => begin(document));
  document.addEventListener("htmx:load", (event) => { if (event.detail.elt !== document.body) begin(event.detail.elt); });
})();

"use strict";
// Draws the page from the data. All text of runs is shown by textContent, or escaped where plotly would read tags in it.
(() => {
  const COLORS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000"];
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const GRID = 400; // points of a mean over seeds where the seeds have no common places
  const SECTIONS = [["sweep", "Sweep"], ["results", "Results"], ["curves", "Curves"], ["events", "Failures and events"],
    ["partitions", "Partitions"], ["settings", "Settings"], ["environment", "Environment"]];
  const chosen = { axis: null, means: null, log: false, metrics: [], hidden: new Set(), sorted: new Map() };
  let data = null;

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name in element && typeof value !== "string") element[name] = value;
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  };
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const shorter = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

  const plots = new Map(); // elements that stay when the page is drawn again, so that what was enlarged stays so
  const plotOf = (id) => {
    if (!plots.has(id)) plots.set(id, make("div", { class: "plot", id }));
    return plots.get(id);
  };

  // ---- tables
  const shown = (value) => {
    if (value === null || value === undefined || value === "") return "–";
    if (typeof value === "object") return value.t;
    if (typeof value !== "number" || Number.isInteger(value)) return String(value);
    if (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-4) return value.toExponential(3);
    return Math.abs(value) >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(4)));
  };
  const key = (cell) => (cell !== null && typeof cell === "object" ? cell.v : cell);
  const isEmpty = (cell) => cell === null || cell === undefined || cell === "";
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (typeof x === "number" && typeof y === "number") return x - y;
    if (typeof x === "number") return -1;
    if (typeof y === "number") return 1;
    return String(x).localeCompare(String(y), undefined, { numeric: true });
  };
  const drawTable = (spec) => {
    const numeric = spec.columns.map((_, n) => spec.rows.some((r) => typeof key(r[n]) === "number")
      && spec.rows.every((r) => isEmpty(r[n]) || typeof key(r[n]) === "number"));
    const head = make("tr");
    const body = make("tbody");
    const fill = () => {
      const [column, sign] = chosen.sorted.get(spec.title) || [null, 1];
      const rows = [...spec.rows];
      if (column !== null) {
        const n = spec.columns.indexOf(column);
        rows.sort((a, b) => (isEmpty(a[n]) - isEmpty(b[n])) || sign * compare(a[n], b[n]));
      }
      [...head.children].forEach((cell, n) => cell.setAttribute("aria-sort",
        spec.columns[n] !== column ? "none" : sign > 0 ? "ascending" : "descending"));
      body.replaceChildren(...rows.map((row) => make("tr", {}, ...row.map((cell, n) => {
        const text = shown(cell);
        const bad = (spec.columns[n] === "state" && text === "failed") ? " bad" : "";
        return make("td", { class: (numeric[n] ? "number" : text.length > 60 ? "long" : "") + bad }, text);
      }))));
    };
    spec.columns.forEach((name, n) => {
      const cell = make("th", { scope: "col", tabindex: "0", class: numeric[n] ? "number" : "" }, name);
      const meaning = data.metrics[name];
      if (meaning) cell.title = meaning;
      const sort = () => {
        const [column, sign] = chosen.sorted.get(spec.title) || [null, 1];
        chosen.sorted.set(spec.title, [name, column === name ? -sign : 1]);
        fill();
      };
      cell.addEventListener("click", sort);
      cell.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
      head.append(cell);
    });
    fill();
    const found = [make("h3", {}, spec.title)];
    if (spec.note) found.push(make("p", { class: "note" }, spec.note));
    found.push(make("div", { class: "scroll", "data-title": spec.title }, make("table", {}, make("thead", {}, head), body)));
    return found;
  };

  // ---- curves
  const unpack = (run) => {
    const axis = (packed) => (Array.isArray(packed)
      ? Float32Array.from({ length: packed[2] }, (_, i) => packed[0] + i * packed[1]) : new Float32Array(bytes(packed)));
    const axes = Object.fromEntries(Object.entries(run.axes).map(([name, packed]) => [name, axis(packed)]));
    run.curve = (metric, axis) => {
      const curve = run.metrics[metric];
      if (!curve || !axes[axis]) return null;
      const y = new Float32Array(bytes(curve.y));
      if (!curve.at && !curve.far) return { x: axes[axis], y };
      const at = curve.at ? new Uint16Array(bytes(curve.at)) : new Uint32Array(bytes(curve.far));
      return { x: Float32Array.from(at, (i) => axes[axis][i]), y };
    };
  };
  const several = () => data.groups.some((_, g) => data.runs.filter((run) => run.group === g).length > 1);
  const style = (number) => ({
    color: COLORS[number % COLORS.length], width: 2,
    dash: DASHES[Math.floor(number / COLORS.length) % DASHES.length],
  });
  // What each of several curves has at common places: exactly there, or its last value before.
  const aligned = (curves, axis) => {
    if (axis === "round" && !data.thinned) {
      const maps = curves.map((c) => new Map(Array.from(c.x, (x, i) => [x, c.y[i]])));
      const x = Array.from(curves[0].x).filter((place) => maps.every((map) => map.has(place)));
      return { x, ys: maps.map((map) => x.map((place) => map.get(place))) };
    }
    const first = Math.max(...curves.map((c) => c.x[0]));
    const last = Math.min(...curves.map((c) => c.x[c.x.length - 1]));
    if (!(last >= first)) return { x: [], ys: curves.map(() => []) };
    const x = Array.from({ length: GRID }, (_, i) => first + ((last - first) * i) / (GRID - 1));
    const ys = curves.map((c) => {
      let i = 0;
      return x.map((place) => {
        while (i + 1 < c.x.length && c.x[i + 1] <= place) i += 1;
        return c.y[i];
      });
    });
    return { x, ys };
  };
  const meanTraces = (group, metric, axis) => {
    const label = data.groups[group];
    const curves = data.runs.filter((r) => r.group === group).map((r) => r.curve(metric, axis)).filter(Boolean);
    if (!curves.length) return [];
    const { x, ys } = aligned(curves, axis);
    const n = curves.length;
    const t = data.t[Math.min(n, data.t.length - 1)];
    const means = x.map((_, i) => ys.reduce((sum, y) => sum + y[i], 0) / n);
    const half = x.map((_, i) => (n < 2 ? 0
      : t * Math.sqrt(ys.reduce((sum, y) => sum + (y[i] - means[i]) ** 2, 0) / (n - 1) / n)));
    const id = `group ${group}`;
    const visible = chosen.hidden.has(id) ? "legendonly" : true;
    const traces = [{
      x, y: means, customdata: half, name: plain(shorter(label, 46)) + ` (n=${n})`, meta: id, legendgroup: id, visible,
      line: style(group), mode: x.length < 30 ? "lines+markers" : "lines",
      hovertemplate: `%{y:.5g}${n > 1 ? " ± %{customdata:.2g}" : ""}<extra>${plain(shorter(label, 60))}</extra>`,
    }];
    if (n > 1) {
      traces.unshift({
        x: [...x, ...[...x].reverse()], fill: "toself", fillcolor: `${style(group).color}26`, line: { width: 0 },
        y: [...means.map((m, i) => m + half[i]), ...means.map((m, i) => m - half[i]).reverse()],
        hoverinfo: "skip", showlegend: false, legendgroup: id, meta: id, visible, mode: "lines",
      });
    }
    return traces;
  };
  const runTraces = (metric, axis) => data.runs.flatMap((run, number) => {
    const curve = run.curve(metric, axis);
    if (!curve) return [];
    const alone = data.runs.filter((other) => other.group === run.group).length === 1;
    const id = `run ${run.name}`;
    const unique = data.runs.filter((o) => o.group === run.group && o.seed === run.seed).length === 1;
    const label = alone ? run.label : unique ? `${run.label}, seed ${run.seed}` : `${run.label}, ${run.name}`;
    return [{
      x: curve.x, y: curve.y, name: plain(shorter(label, 52)), meta: id,
      visible: chosen.hidden.has(id) ? "legendonly" : true,
      line: { ...style(several() ? run.group : number), width: several() ? 1.3 : 2 },
      mode: curve.x.length < 30 ? "lines+markers" : "lines", marker: { size: 4 },
      hovertemplate: `%{y:.5g}<extra>${plain(shorter(label, 80))}</extra>`,
    }];
  });
  const drawPanel = (number) => {
    const metric = chosen.metrics[number];
    const traces = chosen.means
      ? data.groups.flatMap((_, group) => meanTraces(group, metric, chosen.axis)) : runTraces(metric, chosen.axis);
    const entries = traces.filter((trace) => trace.showlegend !== false).length;
    const plot = document.getElementById(`plot-${number}`);
    const layout = {
      height: 370, margin: { l: 64, r: 12, t: 30, b: 46 }, hovermode: traces.length > 24 ? "closest" : "x unified",
      font: { family: "system-ui, 'DejaVu Sans', sans-serif", size: 13 }, plot_bgcolor: "#fff",
      xaxis: { title: { text: data.axes[chosen.axis] }, gridcolor: "#e6e6e6", zeroline: false, uirevision: chosen.axis },
      yaxis: { title: { text: metric }, type: chosen.log ? "log" : "linear", gridcolor: "#e6e6e6", zeroline: false,
        exponentformat: "power", // an interval may pass 0 or 1, an accuracy does not
        ...(metric.includes("accuracy") && !chosen.log ? { autorangeoptions: { clipmin: -0.02, clipmax: 1.02 } } : {}) },
      showlegend: entries > 0, legend: { font: { size: 12 }, itemwidth: 30 },
      uirevision: `${metric} ${chosen.axis} ${chosen.log}`,
    };
    Plotly.react(plot, traces, layout, { responsive: true, displaylogo: false });
    if (!plot.listens) {
      plot.listens = true;
      const id = (event) => event.data[event.curveNumber].meta;
      plot.on("plotly_legendclick", (event) => {
        const one = id(event);
        if (!chosen.hidden.delete(one)) chosen.hidden.add(one);
        drawPanels();
        return false;
      });
      plot.on("plotly_legenddoubleclick", (event) => {
        const every = new Set(event.data.map((trace) => trace.meta));
        const others = [...every].filter((one) => one !== id(event));
        const alone = others.every((one) => chosen.hidden.has(one));
        every.forEach((one) => chosen.hidden.delete(one));
        if (!alone) others.forEach((one) => chosen.hidden.add(one));
        drawPanels();
        return false;
      });
    }
  };
  const drawPanels = () => chosen.metrics.forEach((_, number) => drawPanel(number));
  const select = (id, options, value, change) => {
    const found = make("select", { id });
    for (const [name, label] of options) found.append(make("option", { value: name, selected: name === value }, label));
    found.addEventListener("change", () => { change(found.value); found.blur(); });
    return found;
  };
  const drawCurves = () => {
    const metrics = Object.keys(data.metrics);
    if (!metrics.length) return [make("p", { class: "note" }, "No run has numbers of rounds yet.")];
    if (!(chosen.axis in data.axes)) chosen.axis = "round";
    if (chosen.means === null) chosen.means = several();
    chosen.metrics = chosen.metrics.filter((name) => metrics.includes(name));
    for (const name of metrics) if (chosen.metrics.length < Math.min(3, metrics.length) && !chosen.metrics.includes(name)) chosen.metrics.push(name);
    const controls = make("div", { class: "controls" });
    controls.append(make("label", {}, "over ", select("axis", Object.entries(data.axes), chosen.axis,
      (value) => { chosen.axis = value; drawPanels(); })));
    if (several()) {
      controls.append(make("label", {}, "lines ", select("lines",
        [["means", "mean of the seeds, 95 % interval"], ["runs", "each run"]], chosen.means ? "means" : "runs",
        (value) => { chosen.means = value === "means"; drawPanels(); })));
    }
    const box = make("input", { type: "checkbox", id: "log", checked: chosen.log });
    box.addEventListener("change", () => { chosen.log = box.checked; drawPanels(); });
    controls.append(make("label", {}, box, " logarithmic"));
    const panels = chosen.metrics.map((metric, number) => {
      const menu = select(`metric-${number}`, metrics.map((name) => [name, name]), metric,
        (value) => { chosen.metrics[number] = value; note.textContent = data.metrics[value]; drawPanel(number); });
      const note = make("p", { class: "note" }, data.metrics[metric]);
      return make("div", { class: "panel" }, menu, note, plotOf(`plot-${number}`));
    });
    const how = "A click on an entry of the legend hides its line, a double click all others. Drag to enlarge, double click to go back.";
    const thin = data.thinned ? ` Curves have at most ${data.points} points: of each stretch the lowest and the highest.` : "";
    return [controls, make("p", { class: "note" }, how + thin), ...panels];
  };

  // ---- partitions
  const drawPartition = (number) => {
    const one = data.partitions[number];
    const plot = document.getElementById(`partition-${number}`);
    const bars = one.y.length === 1;
    const grouped = one.x.length < one.clients;
    const x = one.x.map((name) => (grouped ? name : `client ${name}`));
    const common = { x: one.x.map((_, i) => i), hoverlabel: { namelength: -1 } };
    const trace = bars
      ? { ...common, type: "bar", y: one.z[0], text: x, textposition: "none", marker: { color: COLORS[0] },
        hovertemplate: `%{text}: %{y} ${one.unit}<extra></extra>` }
      : { ...common, type: "heatmap", y: one.y.map((_, i) => i), z: one.z, colorscale: "Cividis", zmin: 0,
        text: one.y.map((label) => x.map((name) => plain(`${name}, label ${label}`))),
        hovertemplate: `%{text}: %{z} ${one.unit}<extra></extra>`, colorbar: { title: { text: one.unit } } };
    const step = Math.max(1, Math.ceil(one.y.length / 25));
    const labels = one.y.map((label, i) => [i, plain(shorter(label, 18))]).filter(([i]) => i % step === 0);
    const stepX = Math.max(1, Math.ceil(one.x.length / 20));
    const ticks = one.x.map((name, i) => [i, grouped ? name.split("-")[0] : plain(shorter(name, 12))]).filter(([i]) => i % stepX === 0);
    Plotly.react(plot, [trace], {
      height: bars ? 240 : Math.min(560, 150 + 24 * one.y.length), margin: { l: 90, r: 12, t: 30, b: 50 },
      font: { family: "system-ui, 'DejaVu Sans', sans-serif", size: 13 },
      xaxis: { title: { text: grouped ? "clients in this order" : "client" }, tickvals: ticks.map((v) => v[0]), ticktext: ticks.map((v) => v[1]) },
      yaxis: bars ? { title: { text: one.unit } } : { title: { text: "label" }, autorange: "reversed",
        tickvals: labels.map((v) => v[0]), ticktext: labels.map((v) => v[1]) },
    }, { responsive: true, displaylogo: false });
  };

  // ---- heat maps of a sweep; a frame is around the trial that was chosen
  const drawMap = (number) => {
    const one = data.maps[number];
    const places = (values) => values.map((_, i) => i);
    const ticks = (values) => ({ tickvals: places(values), ticktext: values.map((v) => plain(shorter(v, 16))) });
    const at = one.chosen;
    const trace = { type: "heatmap", x: places(one.xs), y: places(one.ys), z: one.z, colorscale: "Cividis", reversescale: one.falls,
      text: one.z.map((row) => row.map((v) => (v === null ? "" : shown(Number(v.toPrecision(3)))))), texttemplate: "%{text}",
      customdata: one.ys.map((y) => one.xs.map((x) => plain(`${one.x} = ${x}, ${one.y} = ${y}`))),
      hovertemplate: "%{customdata}: %{z:.5g}<extra></extra>", colorbar: { title: { text: plain(one.value) } } };
    Plotly.react(document.getElementById(`map-${number}`), [trace], {
      height: Math.min(560, 170 + 46 * one.ys.length), margin: { l: 120, r: 12, t: 16, b: 56 }, plot_bgcolor: "#ddd",
      font: { family: "system-ui, 'DejaVu Sans', sans-serif", size: 13 },
      xaxis: { title: { text: plain(one.x) }, ...ticks(one.xs) }, yaxis: { title: { text: plain(one.y) }, ...ticks(one.ys) },
      shapes: at ? [{ type: "rect", x0: at[0] - 0.48, x1: at[0] + 0.48, y0: at[1] - 0.46, y1: at[1] + 0.46, line: { color: "#D55E00", width: 4 } }] : [],
    }, { responsive: true, displaylogo: false });
  };
  const drawSweep = () => [...(data.tables.sweep || []).flatMap(drawTable), ...data.maps.flatMap((one, number) => [
    make("h3", {}, one.title), make("p", { class: "note" }, one.chosen ? "The frame is around the trial that was chosen." : ""), plotOf(`map-${number}`)])];

  // ---- the page
  const build = () => {
    const main = document.getElementById("page");
    const going = data.runs.filter((run) => !["completed", "failed", "stopped"].includes(run.state)).length;
    document.getElementById("status").textContent = `${data.runs.length} run${data.runs.length === 1 ? "" : "s"}`
      + (going ? `, ${going} without a summary yet` : "") + `; as of ${data.made}`;
    const content = { sweep: drawSweep(), curves: drawCurves(), partitions: data.partitions.flatMap((one, number) => [
      make("h3", {}, `${one.clients} clients: ${data.partitions.length === 1 ? "all runs that have one" : shorter(one.runs.join("; "), 160)}`),
      make("p", { class: "note" }, one.note), plotOf(`partition-${number}`)]) };
    const sections = SECTIONS.map(([id, title]) => [id, title, content[id] || (data.tables[id] || []).flatMap(drawTable)])
      .filter(([, , inside]) => inside.length);
    const top = make("nav", {}, ...sections.map(([id, title]) => make("a", { href: `#${id}` }, title)));
    const notes = data.notes.map((text) => make("p", { class: "warning" }, text));
    main.replaceChildren(top, ...notes, ...sections.map(([id, title, inside]) =>
      make("section", { id }, make("h2", {}, title), ...inside)));
    drawPanels();
    data.partitions.forEach((_, number) => drawPartition(number));
    data.maps.forEach((_, number) => drawMap(number));
    document.body.dataset.drawn = String(Number(document.body.dataset.drawn || 0) + 1);
  };
  const show = (found) => {
    data = found;
    data.runs.forEach(unpack);
    build();
  };
  const ask = async (seconds, tag) => {
    let next = tag;
    try {
      const reply = await fetch(`data${location.search}`, { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
      if (reply.status === 200) {
        const content = await reply.json();
        if (document.activeElement.tagName !== "SELECT") { // an open menu is not closed; the next look shows the data
          next = reply.headers.get("ETag");
          const at = [window.scrollX, window.scrollY];
          const boxes = [...document.querySelectorAll(".scroll")].map((box) => [box.dataset.title, box.scrollLeft, box.scrollTop]);
          show(content);
          for (const [title, left, top] of boxes) {
            const box = [...document.querySelectorAll(".scroll")].find((other) => other.dataset.title === title);
            if (box) box.scrollTo(left, top);
          }
          window.scrollTo(...at);
        }
      } else if (reply.status !== 304) throw new Error(await reply.text());
    } catch (error) {
      document.getElementById("status").textContent = `No answer (${error.message}); the page asks again.`;
    }
    setTimeout(ask, seconds * 1000, seconds, next);
  };
  const given = JSON.parse(document.getElementById("data").textContent);
  if (given.live) ask(given.live, "");
  else show(given);
})();

// At a glance: is everything safe, what is happening, what has happened.

import { t, locale, h, fill, get, post, button, command, announce, shape, tone, number, bytes, age, moment, span } from "./lib.js";

export async function show(frame) {
	const hero = h("section.card.hero", { "aria-labelledby": "state-title" });
	const notices = h("div"), facts = h("dl.facts"), activity = h("section.card"), days = h("section.card");
	const title = h("h1", { id: "state-title" });
	const sentence = h("p.lead"), since = h("p.since.soft"), mark = h("div.shape"), acts = h("div.row.does");
	hero.append(mark, h("div", title, sentence, since), acts);

	// What has the focus must not be drawn anew for nothing: it would lose it.
	let mood = "", offer = "";
	const tick = () => {
		for (const e of activity.querySelectorAll("[data-time]")) e.textContent = age(e.dataset.time);
		const st = frame.state?.status;
		since.textContent = !st ? "" : st.last_safe ? t("overview.safe", { age: age(st.last_safe) }) : t("overview.nothing");
	};
	frame.onState((s) => {
		title.textContent = s.title;
		fill(sentence, s.status?.reason ? `${s.sentence} ${capital(s.status.reason)}.` : s.sentence);
		tick();
		if (s.state !== mood) {
			mood = s.state;
			mark.className = `shape is-${tone(s.state)}`;
			fill(mark, shape(s.state));
		}
		const look = JSON.stringify([s.agent, s.kit_pending, paused(s), s.setup]);
		if (look !== offer) {
			offer = look;
			fill(acts, buttons(s));
			fill(notices, s.agent === "absent" && s.setup === "done" && stopped(), s.kit_pending && kit());
		}
		const st = s.status;
		facts.hidden = activity.hidden = days.hidden = !st;
		if (st) {
			fill(facts,
				fact(t("overview.protected"), number(st.protected), bytes(st.bytes)),
				fact(t("overview.waiting"), number(st.waiting), st.rate > 0 ? t("rate", { rate: bytes(st.rate) }) : ""),
				fact(t("overview.problems"), st.problems ? h("a.is-warn", { href: "/problems" }, number(st.problems)) : number(0)),
				fact(t("overview.excluded"), number(st.excluded)));
		}
	});
	frame.every(1000, tick);
	frame.every(1000, async () => {
		if (!frame.state?.status) return;
		try {
			drawActivity(activity, await get("activity", {}, frame.left), frame.state.status);
		} catch { /* the state says that there is no agent */ }
	});
	frame.every(30000, async () => {
		if (!frame.state?.status) return;
		try {
			drawDays(days, await get("days", {}, frame.left));
		} catch { /* as above */ }
	});
	return [hero, notices, facts, h("div.two", activity, days)];
}

const paused = (s) => s.state === "paused" || Boolean(s.status?.paused_until);
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const fact = (name, value, more) => h("div", h("dt", name), h("dd", value, more && [" ", h("small", more)]));

function buttons(s) {
	if (s.agent !== "running") return [];
	const until = (hours) => new Date(Date.now() + hours * 3600e3).toISOString();
	const tomorrow = () => {
		const d = new Date();
		d.setDate(d.getDate() + 1);
		d.setHours(7, 0, 0, 0);
		return d.toISOString();
	};
	const pause = (text, at) => button(text, async () => {
		await post("pause", { until: at() });
		announce(t("paused"));
	});
	return [
		button(t("overview.backup"), async (b) => {
			b.textContent = t("overview.backing");
			try {
				const done = await post("backup");
				announce(t("overview.backed", { n: done.files }));
			} finally {
				b.textContent = t("overview.backup");
			}
		}, { kind: "main" }),
		paused(s) ? button(t("resume"), () => post("resume")) : h("details.menu", h("summary.button", t("pause")), h("div",
			pause(t("pause.hour"), () => until(1)), pause(t("pause.tomorrow"), tomorrow), pause(t("pause.resumed"), () => "0001-01-01T00:00:00Z"))),
		h("a.button", { href: "/files" }, t("overview.restore")),
	];
}

const stopped = () => h("section.card", h("h2", t("stopped.title")), h("p", t("stopped.text")),
	command("agent service install"), h("p.soft.small", t("stopped.or")), command("agent run"));
const kit = () => h("div.notice", h("p", h("strong", t("kit.notice.title")), " ", t("kit.notice.text")), h("a.button", { href: "/kit" }, t("kit.notice.go")));

function drawActivity(card, a, st) {
	const row = (name, ...more) => h("li", h("div.line", h("span.path", { title: name }, short(name)), h("span.soft.small.num", more[0])), more.slice(1));
	const look = JSON.stringify([a, st.waiting, st.rate]);
	if (card.dataset.drawn === look) return;
	card.dataset.drawn = look;
	const open = card.querySelector("details")?.open, focus = card.contains(document.activeElement);
	fill(card,
		h("header", h("h2", t("activity.title")), h("p.soft.small.num", st.rate > 0 ? t("rate", { rate: bytes(st.rate) }) : "")),
		a.sending.length > 0 && [h("h3", t("activity.sending")), h("ul.list", a.sending.slice(0, 5).map((f) => row(f.path, bytes(f.size),
			h("progress", { max: Math.max(f.size, 1), value: Math.min(f.sent, f.size), "aria-label": f.path }))))],
		a.waiting.length > 0 && h("details", { open }, h("summary", t("activity.waiting", { n: st.waiting })), h("ul.list", a.waiting.slice(0, 10).map((f) => row(f.path, bytes(f.size))))),
		a.recent.length > 0 && [h("h3", t("activity.recent")), h("ul.list", a.recent.slice(0, 8).map((b) => h("li", h("div.line",
			h("span", { title: b.path }, h("span.path", short(b.path)), b.changes > 1 && h("span.soft.small", " ", t("activity.more", { n: b.changes - 1 }))),
			h("span.soft.small.num", { title: moment(b.time), "data-time": b.time }, age(b.time))))))],
		a.sending.length + a.waiting.length + a.recent.length === 0 && h("p.soft", t("activity.none")));
	if (focus) card.querySelector("summary")?.focus();
}
const short = (path) => path.split(/[/\\]/).slice(-2).join("/");

const dayCount = 14;
function drawDays(card, list) {
	const look = JSON.stringify([list, new Date().getDate()]);
	if (card.dataset.drawn === look) return;
	card.dataset.drawn = look;
	const focus = card.contains(document.activeElement);
	const byDate = new Map(list.map((d) => [d.date, d]));
	const all = [];
	for (let back = dayCount - 1; back >= 0; back--) {
		const d = new Date();
		d.setDate(d.getDate() - back);
		const date = `${d.getFullYear()}-${String(d.getMonth() + 1).padStart(2, "0")}-${String(d.getDate()).padStart(2, "0")}`;
		all.push({ when: d, changes: 0, bytes: 0, gap: 0, ...byDate.get(date) });
	}
	const sum = (key) => all.reduce((n, d) => n + d[key], 0);
	const width = 420, height = 150, foot = 22, top = 14, step = width / dayCount;
	const most = Math.max(1, ...all.map((d) => d.changes));
	const day = (d, style) => new Intl.DateTimeFormat(locale, style).format(d.when);
	const bars = all.map((d, i) => {
		const tall = d.changes ? Math.max(3, (height - foot - top) * Math.sqrt(d.changes / most)) : 0;
		const x = i * step + 4, base = height - foot;
		const label = t("days.one", { day: day(d, { dateStyle: "medium" }), changes: number(d.changes), bytes: bytes(d.bytes) });
		return h("g", h("rect.bar", { x, y: base - tall, width: step - 8, height: tall, rx: 3 }),
			d.gap > 0 && h("rect.gap", { x, y: base + 3, width: step - 8, height: 4, rx: 2 }),
			i % 2 === 1 && h("text", { x: x + (step - 8) / 2, y: height - 2, "text-anchor": "middle" }, day(d, { day: "numeric", month: i === 1 || d.when.getDate() <= 2 ? "short" : undefined })),
			tipped(label));
	});
	const label = t("days.label", { changes: number(sum("changes")), bytes: bytes(sum("bytes")), span: span(sum("gap")) });
	const open = card.querySelector("details")?.open;
	fill(card, h("header", h("h2", t("days.title")), h("p.soft.small.num", t("days.sum", { changes: number(sum("changes")), bytes: bytes(sum("bytes")) }))),
		h("figure.chart", h("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, h("line.base", { x1: 0, x2: width, y1: height - foot + .5, y2: height - foot + .5 }), bars)),
		h("div.key", h("span", swatch("bar"), t("days.changes")), h("span", swatch("gap"), t("days.gap", { span: span(sum("gap")) }))),
		h("details", { open }, h("summary", t("days.table")), h("table", h("thead", h("tr", h("th", t("days.day")), h("th.num", t("days.changes")), h("th.num", t("days.bytes")), h("th.num", t("days.gaps")))),
			h("tbody", all.toReversed().map((d) => h("tr", h("td", day(d, { dateStyle: "medium" })), h("td.num", number(d.changes)), h("td.num", bytes(d.bytes)), h("td.num", d.gap ? span(d.gap) : "–")))))));
	if (focus) card.querySelector("summary").focus();
}
function tipped(text) {
	const e = document.createElementNS("http://www.w3.org/2000/svg", "title");
	e.textContent = text;
	return e;
}
const swatch = (kind) => h("svg.chart", { viewBox: "0 0 12 12", "aria-hidden": "true" }, h(`rect.${kind}`, { width: 12, height: 12, rx: 3 }));

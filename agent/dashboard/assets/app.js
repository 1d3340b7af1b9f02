// The frame of all pages: which one is shown, what it is told, what is being restored.

import { t, h, fill, get, post, follow, button, announce, shape, tone, bytes, span, failure } from "./lib.js";

const pages = {
	"": () => import("./overview.js"),
	problems: () => import("./problems.js"),
	folders: () => import("./folders.js"),
	files: () => import("./files.js"),
	timeline: () => import("./timeline.js"),
	settings: () => import("./settings.js"),
	kit: () => import("./kit.js"),
	welcome: () => import("./welcome.js"),
};
pages.overview = pages[""];

const main = document.getElementById("main");
let state = null;
let listeners = [];
let leave = new AbortController();
let turn = 0;
let at = ""; // where the page that is shown is

// A page gets what it needs: the state now and when it changes, a signal that it is
// left, and the way to another page.
const frame = {
	get state() { return state; },
	// onState calls f now and at every change, while the page is shown.
	onState(f) {
		listeners.push(f);
		if (state) f(state);
	},
	// every calls f now and then again, while the page is shown and seen.
	every(ms, f) {
		const signal = leave.signal;
		const step = async () => {
			if (signal.aborted) return;
			if (!document.hidden) await f();
			setTimeout(step, ms);
		};
		step();
	},
	get left() { return leave.signal; },
	go,
};

export function go(path, { replace = false } = {}) {
	history[replace ? "replaceState" : "pushState"](null, "", path);
	return show(true);
}

async function show(focus) {
	const name = location.pathname.slice(1);
	const mine = ++turn;
	at = location.pathname + location.search;
	leave.abort();
	leave = new AbortController();
	listeners = [];
	for (const a of document.querySelectorAll("nav a")) {
		if (a.dataset.page === (name === "overview" ? "" : name)) a.setAttribute("aria-current", "page");
		else a.removeAttribute("aria-current");
	}
	let content;
	try {
		const page = await (pages[name] ?? pages[""])();
		content = await page.show(frame, new URLSearchParams(location.search));
	} catch (err) {
		content = [h("h1", t("failed")), failure(err)];
	}
	if (mine !== turn) return; // another was asked for meanwhile
	fill(main, content);
	const heading = main.querySelector("h1");
	document.title = `${heading.textContent} – Backstay`;
	document.body.classList.toggle("setup", state?.setup !== "done");
	if (focus) {
		heading.tabIndex = -1;
		heading.focus();
		scrollTo(0, 0);
	}
}

document.addEventListener("click", (e) => {
	const a = e.target.closest("a[href^='/']");
	if (!a || e.ctrlKey || e.metaKey || e.shiftKey || e.button || a.hasAttribute("download")) return;
	e.preventDefault();
	go(a.getAttribute("href"));
});
addEventListener("popstate", () => {
	// A link within the page, as that to the content, is none to another one.
	if (location.pathname + location.search !== at) show(true);
});
// A menu closes when somebody looks elsewhere.
for (const kind of ["click", "focusin"]) {
	document.addEventListener(kind, (e) => {
		for (const m of document.querySelectorAll("details.menu[open]")) if (!m.contains(e.target)) m.open = false;
	});
}
document.addEventListener("keydown", (e) => {
	if (e.key !== "Escape") return;
	for (const m of document.querySelectorAll("details.menu[open]")) {
		m.open = false;
		m.querySelector("summary").focus();
	}
});

const glance = document.getElementById("glance"), count = document.getElementById("problem-count");
function told(next) {
	const before = state;
	state = next;
	if (before?.state !== next.state || before?.title !== next.title) {
		fill(glance, h(`span.is-${tone(next.state)}`, shape(next.state)), next.title);
		glance.firstChild.style.display = "flex";
		if (before) announce(`${next.title}. ${next.sentence}`);
	}
	const problems = next.status?.problems ?? 0;
	count.hidden = problems === 0;
	count.textContent = problems;
	count.setAttribute("aria-label", t("problems.count", { n: problems }));
	document.body.classList.toggle("setup", next.setup !== "done");
	showJobs(next.jobs);
	for (const f of listeners) f(next);
}

// What is being restored stays in sight on every page.
const box = document.getElementById("jobs");
const shown = new Map();
function showJobs(jobs) {
	for (const [id, one] of shown) {
		if (!jobs.some((j) => j.id === id)) {
			one.article.remove();
			shown.delete(id);
		}
	}
	for (const j of jobs) {
		let one = shown.get(j.id);
		if (!one) {
			one = { article: h("article") };
			shown.set(j.id, one);
			box.append(one.article);
		}
		drawJob(one, j);
	}
	box.hidden = jobs.length === 0;
}
function drawJob(one, j) {
	if (one.state !== j.state || one.kept !== j.kept) {
		if (one.state || j.state !== "running") announce(t(`job.${j.state}`, { name: j.name }));
		one.state = j.state;
		one.kept = j.kept;
		one.bar = h("progress", { "aria-label": t("job.progress", { name: j.name }) });
		one.how = h("p.small.soft.num");
		fill(one.article,
			h("h2", t(`job.${j.state}`, { name: j.name })),
			j.state === "running" && one.bar, one.how,
			j.error && h("p.error", j.error),
			j.to.length > 0 && j.state === "done" && h("p.small", t("job.to"), " ", j.to.map((p) => h("span.path", p))),
			j.notes.length > 0 && h("ul", j.notes.map((n) => h("li", n))),
			j.kept > 0 && h("p.small.soft", t("job.kept", { n: j.kept })),
			h("div.row",
				j.state === "running" && button(t("cancel"), () => post("restore/cancel", { id: j.id })),
				j.state !== "running" && j.kept > 0 && button(t("job.undo"), () => post("restore/undo", { id: j.id })),
				j.state !== "running" && button(t("close"), () => post("restore/forget", { id: j.id }), { kind: "plain", label: t("job.close", { name: j.name }) })));
	}
	if (j.total_bytes > 0) {
		one.bar.max = j.total_bytes;
		one.bar.value = j.bytes;
	}
	const parts = [t("job.files", { n: j.files }), bytes(j.bytes)];
	if (j.state === "running" && j.rate > 0) parts.push(t("rate", { rate: bytes(j.rate) }));
	if (j.state === "running" && j.left >= 0 && j.rate > 0) parts.push(t("job.left", { span: span(Math.max(1, j.left)) }));
	if (j.state === "running" && !j.at) parts.splice(0, 2, t("job.looking"));
	one.how.textContent = parts.join(" · ");
}

async function watch() {
	for (let failed = false; ;) {
		try {
			await follow("events", (next) => {
				if (failed) document.getElementById("ended")?.remove();
				failed = false;
				told(next);
			});
		} catch (err) {
			if (!failed) {
				failed = true;
				main.before(h("p.error", { id: "ended", role: "alert" }, err.message));
			}
		}
		await new Promise((r) => setTimeout(r, 1000));
	}
}

async function begin() {
	try {
		told(await get("state"));
	} catch (err) {
		fill(main, h("h1", t("failed")), failure(err));
		return;
	}
	const path = location.pathname;
	if (state.setup !== "done" && path !== "/welcome") await go("/welcome", { replace: true });
	else if (state.setup === "done" && path === "/welcome" || state.kit_due && path === "/") await go(state.kit_pending ? "/kit" : "/", { replace: true });
	else await show(false);
	watch();
}
begin();

// Every two seconds the page is asked for again, and what has changed in it takes the place of what was there. What has the focus, or is
// folded out, stays. A page that nobody sees asks for nothing.
"use strict";

const parts = ["health", "facts", "plots", "shown", "live", "tables", "asof"];

async function refresh() {
	if (document.hidden) return;
	const stale = document.getElementById("stale");
	try {
		const answer = await fetch(location.pathname + location.search, { cache: "no-store" });
		if (!answer.ok) throw new Error(answer.status);
		const next = new DOMParser().parseFromString(await answer.text(), "text/html");
		for (const id of parts) {
			const was = document.getElementById(id), is = next.getElementById(id);
			if (was && is && was.outerHTML !== is.outerHTML) {
				was.className = is.className;
				was.replaceChildren(...is.childNodes);
				if (is.dateTime) was.dateTime = is.dateTime;
			}
		}
		document.title = next.title;
		stale.hidden = true;
	} catch {
		stale.hidden = false;
	}
}

setInterval(refresh, 2000);
document.addEventListener("visibilitychange", refresh);

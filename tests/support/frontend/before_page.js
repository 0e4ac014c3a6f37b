// Before the page's own scripts. Console errors with the stacks of the errors in them and of the call, so that the file
// at fault shows.
const shown = (v) => v instanceof Error ? (v.stack || String(v))
  : v && typeof v === "object" && Object.values(v).some((x) => x instanceof Error)
  ? Object.values(v).map(shown).join(" ") : v;
const original = console.error;
console.error = (...all) => original(...all.map(shown), "\n@ " + new Error().stack);
localStorage.setItem("vueNodesBannerDismissed", "true");
localStorage.setItem("comfy.vueNodesMigration.dismissed", "true");

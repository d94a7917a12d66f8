// plotly.js, which the page carries packed. Nothing is fetched.
async function unpack() {
  const bytes = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = made("script", { textContent: await new Response(stream).text() });
  document.head.append(script);
}

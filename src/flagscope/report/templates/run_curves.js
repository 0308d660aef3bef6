// Curves over several runs: each run, their mean and their range.
function bandFigure(bands, number, pair) {
  const band = bands.of[number.field]?.[pair.name];
  const alt = `${number.title} of ${pair.name} over all runs`;
  if (!band?.mean.some((value) => value !== null)) return { spec: { data: [], layout: {} }, alt, empty: "No two runs have this number at one step." };
  const filled = (low, high, fillcolor, name) => {
    const known = band.places.map((_, i) => i).filter((i) => low[i] !== null && high[i] !== null);
    const at = (ends) => known.map((i) => ends[i]);
    const x = at(band.places);
    return known.length < 2 ? [] : [{ type: "scatter", mode: "lines", x: [...x, ...x.toReversed()], y: [...at(low), ...at(high).toReversed()], fill: "toself", fillcolor, line: { width: 0, color: fillcolor }, hoverinfo: "skip", name }];
  };
  const lines = runs.filter((one) => one.numbered).map((one) => {
    const values = number.all[pair.index]?.[0] ?? [];
    return {
      type: "scatter", mode: "lines", name: one.name, x: one.numbered, y: one.places.map((place) => values[place] ?? null),
      line: { color: "$muted", width: one === run ? 2 : 0.8, dash: one === run ? "dash" : "solid" }, hoverinfo: "skip",
    };
  });
  const text = band.places.map((place, i) => [`<b>${bands.numbers[place].toLocaleString("en")}</b>`, band.mean[i] === null ? "" : `mean ${shortNumber(band.mean[i])}`,
    band.low[i] === null ? "" : `${shortNumber(band.low[i])} to ${shortNumber(band.high[i])}, ${band.runs[i]} runs`].filter(Boolean).join("<br>"));
  const mean = {
    type: "scatter", mode: "lines+markers", name: "mean", x: band.places, y: band.mean, text, hovertemplate: "%{text}<extra></extra>",
    line: { color: "$raw", width: 2 }, marker: { color: "$raw", size: band.places.length > 24 ? 4 : 6 },
  };
  const data = [...filled(band.low, band.high, "$band", "range of the runs"), ...filled(band.mean_low, band.mean_high, "$spread", "95 % interval of the mean"), ...lines, mean];
  const rows = () => [["number", "runs", "mean", "lowest", "highest", "mean, 95 % from", "to"],
    ...band.places.map((place, i) => [bands.numbers[place], band.runs[i], band.mean[i], band.low[i], band.high[i], band.mean_low[i], band.mean_high[i]])];
  return { spec: { data, layout: number.layout }, alt, rows, axes: bands.axes };
}

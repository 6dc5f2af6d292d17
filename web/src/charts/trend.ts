// A calm line through restless values.

// Fewer points are read one by one; a mean over them would hide what there is.
const FEWEST = 40;
const WINDOWS = 40;

/**
 * The mean of each value and its neighbours, a fortieth of the curve wide and centred, so that it does not lag behind.
 * At the beginning, where a loss falls steeply, it narrows; at the end, where a running job adds a value each second,
 * it keeps its earlier half, so that it does not flap. A gap stays one. Null where there are too few points.
 */
export function runningMean(values: readonly (number | null)[]): (number | null)[] | null {
  if (values.length < FEWEST) return null;
  const reach = Math.max(1, Math.round(values.length / WINDOWS / 2));
  return values.map((value, index) => {
    if (value === null) return null;
    const span = Math.min(reach, index);
    let sum = 0;
    let count = 0;
    for (let place = index - span; place <= Math.min(index + span, values.length - 1); place += 1) {
      const neighbour = values[place];
      if (neighbour != null) {
        sum += neighbour;
        count += 1;
      }
    }
    return sum / count;
  });
}

// A calm line through restless values.

// Fewer points are read one by one; a mean over them would hide what there is.
const FEWEST = 40;
const WINDOWS = 40;

type Values = readonly (number | null)[];

/** Where points stand for more steps than their own: the mean over these (null: not known), and of how many steps. */
export interface Means {
  mean: Values;
  weight: readonly number[];
}

/**
 * The mean of each value and its neighbours, a fortieth of the curve wide and centred, so that it does not lag behind.
 * At the beginning, where a loss falls steeply, it narrows; at the end, where a running job adds a value each second,
 * it keeps its earlier half, so that it does not flap. A gap stays one. Null where there are too few points.
 *
 * Of many steps the points are the lowest and the highest, over which a mean says nothing: it is taken over `means`.
 */
export function runningMean(values: Values, means: Means | null = null): (number | null)[] | null {
  const mean = means?.mean ?? values;
  if (values.length < FEWEST || mean.every((one) => one === null)) return null;
  const reach = Math.max(1, Math.round(values.length / WINDOWS / 2));
  return values.map((value, index) => {
    if (value === null || mean[index] == null) return null;
    const span = Math.min(reach, index);
    let sum = 0;
    let count = 0;
    for (let place = index - span; place <= Math.min(index + span, values.length - 1); place += 1) {
      const neighbour = mean[place];
      const weight = means === null ? 1 : (means.weight[place] ?? 0);
      if (neighbour != null) {
        sum += neighbour * weight;
        count += weight;
      }
    }
    return count > 0 ? sum / count : null;
  });
}

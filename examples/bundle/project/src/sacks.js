// How many sacks a harvest fills, in words.
export function sacks(harvest, perSack) {
  const full = Math.ceil(harvest / perSack);
  return `${full} sack${full === 1 ? '' : 's'}`;
}

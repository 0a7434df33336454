// Numbers, sizes and dates as people read them.

/** @param {number} bytes */
export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** @param {number} number */
export function count(number) {
  return Math.round(number).toLocaleString("en");
}

/** @param {number} rate */
export function rate(rate) {
  return rate >= 100 ? count(rate) : rate.toFixed(1);
}

/** @param {number} milliseconds */
export function duration(milliseconds) {
  const seconds = milliseconds / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/** @param {number} time in milliseconds since 1970 */
export function day(time, now = Date.now()) {
  const start = new Date(now).setHours(0, 0, 0, 0);
  if (time >= start) return "Today";
  if (time >= start - 86_400_000) return "Yesterday";
  return new Date(time).toLocaleDateString(undefined, { day: "numeric", month: "long", year: "numeric" });
}

/**
 * @param {number} number
 * @param {string} one
 */
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

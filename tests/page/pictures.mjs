// Pictures for the tests: two shapes as PNG, made here; and the demo's photographs.

import { readFile } from "node:fs/promises";
import { deflateSync } from "node:zlib";

const DEMO = new URL("../../demo/images/", import.meta.url);

function crc(bytes) {
  let value = ~0;
  for (const byte of bytes) {
    value ^= byte;
    for (let bit = 0; bit < 8; bit += 1) value = (value >>> 1) ^ (value & 1 ? 0xedb88320 : 0);
  }
  return ~value >>> 0;
}

function part(name, data) {
  const head = Buffer.alloc(8);
  head.writeUInt32BE(data.length, 0);
  head.write(name, 4, "latin1");
  const tail = Buffer.alloc(4);
  tail.writeUInt32BE(crc(Buffer.concat([head.subarray(4), data])), 0);
  return Buffer.concat([head, data, tail]);
}

/**
 * @param {number} width
 * @param {number} height
 * @param {(x: number, y: number) => number[]} colour of a pixel as red, green, blue
 */
export function png(width, height, colour) {
  const rows = Buffer.alloc((width * 3 + 1) * height);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) rows.set(colour(x, y), y * (width * 3 + 1) + 1 + x * 3);
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  return Buffer.concat([Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]), part("IHDR", header), part("IDAT", deflateSync(rows)), part("IEND", Buffer.alloc(0))]);
}

/** A red circle and a blue square. */
export function shapes(width = 480, height = 320) {
  return png(width, height, (x, y) => {
    const [u, v] = [x / height, y / height];
    if (Math.hypot(u - 0.45, v - 0.5) < 0.25) return [205, 66, 52];
    if (Math.abs(u - 1.05) < 0.22 && Math.abs(v - 0.52) < 0.22) return [52, 98, 178];
    return [243, 236, 220];
  });
}

export function demo(name) {
  return readFile(new URL(name, DEMO));
}

/** The size of a PNG or JPEG in a `data:` URL. */
export function sizeOf(dataUrl) {
  const bytes = Buffer.from(dataUrl.slice(dataUrl.indexOf(",") + 1), "base64");
  if (dataUrl.startsWith("data:image/png")) return { width: bytes.readUInt32BE(16), height: bytes.readUInt32BE(20) };
  let at = 2;
  while (at < bytes.length) {
    const marker = bytes[at + 1];
    if (marker >= 0xc0 && marker <= 0xc3) return { width: bytes.readUInt16BE(at + 7), height: bytes.readUInt16BE(at + 5) };
    at += 2 + bytes.readUInt16BE(at + 2);
  }
  throw new Error("no size in this JPEG");
}

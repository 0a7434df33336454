// Makes a file into a picture that can be sent: decoded, turned upright, at most 2048 pixels long, PNG or JPEG.

/** The long side of what is sent; models that see look at less. */
const LONGEST = 2048;
const JPEG_QUALITY = 0.9;
/** A lossless picture up to this size stays lossless: screenshots do. */
const PNG_BYTES = 1_500_000;
/** No camera writes larger files, and decoding them would end the tab. */
const FILE_BYTES = 200_000_000;

/** A picture that cannot be sent; the message says why and what to do. */
export class PictureError extends Error {}

/** @typedef {{blob: Blob, name: string, width: number, height: number}} Prepared */

/**
 * @param {File} file
 * @returns {Promise<Prepared>}
 */
export async function prepare(file) {
  const name = file.name || "picture";
  if (file.size > FILE_BYTES) {
    throw new PictureError(`“${name}” is too big (${Math.round(file.size / 1e6)} MB; at most ${FILE_BYTES / 1e6} MB). Save it smaller and try again.`);
  }
  const bitmap = await decode(file, name);
  try {
    const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
    const width = Math.max(1, Math.round(bitmap.width * scale));
    const height = Math.max(1, Math.round(bitmap.height * scale));
    const blob = await encode(bitmap, width, height, file.type !== "image/jpeg" && !isHeic(file.type));
    if (!blob) throw new PictureError(`“${name}” is too big for this browser. Save it smaller and try again.`);
    return { blob, name, width, height };
  } finally {
    bitmap.close();
  }
}

/**
 * @param {File} file
 * @param {string} name
 */
async function decode(file, name) {
  try {
    // The orientation that cameras note in EXIF is applied here.
    return await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    const start = new Uint8Array(await file.slice(0, 16).arrayBuffer().catch(() => new ArrayBuffer(0)));
    if (isHeic(file.type) || hasHeicBrand(start)) {
      throw new PictureError(
        `“${name}” is a HEIC photo, and this browser cannot open those. Send it as JPEG; on an iPhone choose Settings, Camera, Formats, Most Compatible.`,
      );
    }
    if (start.length === 0) throw new PictureError(`“${name}” is empty or could not be read. Choose it again.`);
    throw new PictureError(`“${name}” is not a picture that this browser can open. JPEG, PNG, WebP, GIF and BMP work.`);
  }
}

function isHeic(/** @type {string} */ type) {
  return type === "image/heic" || type === "image/heif";
}

/** HEIC has no extension one can trust; its first box names its brand. */
function hasHeicBrand(/** @type {Uint8Array} */ start) {
  const text = String.fromCharCode(...start);
  return text.slice(4, 8) === "ftyp" && /^(heic|heix|hevc|heim|heis|mif1|msf1)/.test(text.slice(8, 12));
}

/**
 * @param {ImageBitmap} bitmap
 * @param {number} width
 * @param {number} height
 * @param {boolean} lossless whether the source may be a screenshot or have transparency
 */
async function encode(bitmap, width, height, lossless) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  if (!context) return null;
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  if (lossless) {
    const png = await toBlob(canvas, "image/png");
    if (png && png.size <= PNG_BYTES) return png;
  }
  // JPEG has no transparency; behind it is white, as on paper.
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  return toBlob(canvas, "image/jpeg");
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {string} type
 * @returns {Promise<Blob | null>}
 */
function toBlob(canvas, type) {
  return new Promise((resolve) => canvas.toBlob(resolve, type, JPEG_QUALITY));
}

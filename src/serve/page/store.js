// Keeps chats, pictures and settings in this browser (IndexedDB; in memory where the browser allows none).

/** @typedef {import("./conversation.js").Chat} Chat */
/** @typedef {{id: string, chat: string, blob: Blob, name: string, width: number, height: number}} Picture */

const KINDS = /** @type {const} */ (["chats", "pictures", "settings"]);

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** @returns {Promise<IDBDatabase>} */
function openDatabase() {
  const request = indexedDB.open("dwindle", 1);
  request.onupgradeneeded = () => {
    for (const kind of KINDS) request.result.createObjectStore(kind, { keyPath: "id" });
  };
  return result(request);
}

/** A database that is gone with the tab. */
class Memory {
  /** @type {Record<string, Map<string, any>>} */
  #kinds = Object.fromEntries(KINDS.map((kind) => [kind, new Map()]));

  /** @param {string} kind @param {string} id */
  async get(kind, id) {
    return this.#kinds[kind].get(id);
  }
  /** @param {string} kind */
  async all(kind) {
    return [...this.#kinds[kind].values()];
  }
  /** @param {string} kind @param {{id: string, [field: string]: any}} value */
  async put(kind, value) {
    this.#kinds[kind].set(value.id, structuredClone(value));
  }
  /** @param {string} kind @param {string} id */
  async remove(kind, id) {
    this.#kinds[kind].delete(id);
  }
}

/** The same calls on IndexedDB. */
class Database {
  /** @param {IDBDatabase} database */
  constructor(database) {
    this.database = database;
  }
  /** @param {string} kind @param {IDBTransactionMode} mode */
  #store(kind, mode) {
    return this.database.transaction(kind, mode).objectStore(kind);
  }
  /** @param {string} kind @param {string} id */
  get(kind, id) {
    return result(this.#store(kind, "readonly").get(id));
  }
  /** @param {string} kind */
  all(kind) {
    return result(this.#store(kind, "readonly").getAll());
  }
  /** @param {string} kind @param {{id: string, [field: string]: any}} value */
  put(kind, value) {
    return result(this.#store(kind, "readwrite").put(value));
  }
  /** @param {string} kind @param {string} id */
  remove(kind, id) {
    return result(this.#store(kind, "readwrite").delete(id));
  }
}

export class Store {
  /**
   * @param {Memory | Database} base
   * @param {boolean} lasting whether chats are still there after the tab is closed
   */
  constructor(base, lasting) {
    this.base = base;
    this.lasting = lasting;
  }

  static async open() {
    try {
      return new Store(new Database(await openDatabase()), true);
    } catch {
      return new Store(new Memory(), false);
    }
  }

  /** @returns {Promise<Chat[]>} the newest first */
  async chats() {
    const chats = /** @type {Chat[]} */ (await this.base.all("chats"));
    return chats.sort((a, b) => b.updated - a.updated);
  }

  /** @returns {Promise<Chat | undefined>} */
  chat(/** @type {string} */ id) {
    return this.base.get("chats", id);
  }

  async saveChat(/** @type {Chat} */ chat) {
    await this.base.put("chats", chat);
  }

  async removeChat(/** @type {string} */ id) {
    await this.base.remove("chats", id);
    await this.#removePictures((picture) => picture.chat === id);
  }

  /** Removes the chat's pictures that no message shows any more. */
  async removeUnused(/** @type {Chat} */ chat) {
    const used = new Set(chat.messages.flatMap((message) => message.pictures));
    await this.#removePictures((picture) => picture.chat === chat.id && !used.has(picture.id));
  }

  async #removePictures(/** @type {(picture: Picture) => boolean} */ unwanted) {
    const pictures = /** @type {Picture[]} */ (await this.base.all("pictures"));
    for (const picture of pictures) if (unwanted(picture)) await this.base.remove("pictures", picture.id);
  }

  /** @returns {Promise<Picture | undefined>} */
  picture(/** @type {string} */ id) {
    return this.base.get("pictures", id);
  }

  async savePicture(/** @type {Picture} */ picture) {
    await this.base.put("pictures", picture);
  }

  /**
   * @param {string} name
   * @param {any} otherwise
   */
  async setting(name, otherwise) {
    const found = await this.base.get("settings", name);
    return found ? found.value : otherwise;
  }

  async saveSetting(/** @type {string} */ name, /** @type {any} */ value) {
    await this.base.put("settings", { id: name, value });
  }
}

/** @returns {Promise<string>} the blob as a `data:` URL */
export function dataUrl(/** @type {Blob} */ blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

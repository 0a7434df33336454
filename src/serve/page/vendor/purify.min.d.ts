// Imported for its global, DOMPurify.
export {};

// What the page uses of marked.
export interface Token {
  type: string;
  raw: string;
}
type Links = Record<string, unknown>;
export interface RendererThis {
  parser: { parseInline(tokens: Token[]): string };
}
export interface Renderer {
  html(this: RendererThis, token: { text: string }): string;
  image(this: RendererThis, token: { href: string; text: string }): string;
  link(this: RendererThis, token: { href: string; tokens: Token[] }): string;
  heading(this: RendererThis, token: { depth: number; tokens: Token[] }): string;
  checkbox(this: RendererThis, token: { checked: boolean }): string;
}
export class Marked {
  constructor(options: { gfm: boolean; breaks: boolean; renderer: Renderer });
  use(options: { extensions: unknown[] }): void;
  lexer(text: string): Token[] & { links: Links };
  parser(tokens: Token[] & { links: Links }): string;
}

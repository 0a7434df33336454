//! Tests of the whole: one binary, so that it links once.

mod bench;
mod cli;
mod convert;
mod end_to_end;
mod engine;
mod formats;
mod gguf;
mod golden;
mod hub;
mod imports;
mod kernels;
mod memory;
mod mlc;
mod outputs;
mod pictures;
mod serve;
mod shortened;
mod targets;
mod terminal;
mod tidy;
mod tokenizers;
mod workbench;

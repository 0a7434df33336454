//! The protocol over real sockets, with an engine that needs no model.

mod client;
mod completing;
mod conversing;
mod failing;
mod guarding;
mod limiting;
mod pairing;
mod queueing;
mod responding;
mod server;
mod showing;
mod toy;
mod using;
